"""The server that the official conformance suite asks for, written on `MCPServer` as a user of understudy would.

Names, texts and schemas are the suite's; each scenario says in its description what it wants to find.
"""

import asyncio
import base64
import json
from typing import Annotated, Any

from mcp.server.mcpserver import (
    AssistantMessage,
    Audio,
    Context,
    Image,
    MCPServer,
    Message,
    Resolve,
    Sample,
    UserMessage,
)
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp.types import (
    Completion,
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    EmbeddedResource,
    EmptyResult,
    ImageContent,
    InputRequest,
    InputRequiredResult,
    ListRootsRequest,
    ListRootsResult,
    SamplingMessage,
    SetLevelRequestParams,
    SubscribeRequestParams,
    TextContent,
    TextResourceContents,
    UnsubscribeRequestParams,
)
from pydantic import BaseModel, Field

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
)
WAV = base64.b64decode("UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA=")


def text_resource(uri: str, mime_type: str, text: str) -> EmbeddedResource:
    return EmbeddedResource(resource=TextResourceContents(uri=uri, mime_type=mime_type, text=text))


def form(message: str, **properties: str) -> ElicitRequest:
    fields = {name: {"type": kind} for name, kind in properties.items()}
    schema = {"type": "object", "properties": fields, "required": list(properties)}
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


def question(text: str, max_tokens: int) -> CreateMessageRequest:
    message = SamplingMessage(role="user", content=TextContent(text=text))
    return CreateMessageRequest(params=CreateMessageRequestParams(messages=[message], max_tokens=max_tokens))


def accepted(ctx: Context, key: str, field: str) -> Any:
    """The answer to the form asked under `key`, or None where there is none that fits."""
    answer = (ctx.input_responses or {}).get(key)
    if isinstance(answer, ElicitResult) and answer.action == "accept" and answer.content:
        return answer.content.get(field)
    return None


def said(answer: CreateMessageResult) -> str:
    return answer.content.text if isinstance(answer.content, TextContent) else str(answer.content)


# --- tools/list: a schema that must come through as it is written

RICH_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


def json_schema_2020_12_tool(name: str = "", contactMethod: str = "", phone: str = "", email: str = "") -> str:  # noqa: N803
    """Tool with JSON Schema 2020-12 features"""
    return f"{name} {contactMethod} {phone} {email}"


rich_tool = Tool.from_function(json_schema_2020_12_tool, structured_output=False)
rich_tool.parameters = RICH_SCHEMA

server = MCPServer("understudy-conformance", version="1.0.0", tools=[rich_tool])
tool = server.tool


# --- tools/call: one tool for each kind of content


@tool(structured_output=False)
def test_simple_text() -> str:
    """Returns a simple text."""
    return "This is a simple text response for testing."


@tool(structured_output=False)
def test_image_content() -> Image:
    """Returns a picture of one pixel."""
    return Image(data=PNG, format="png")


@tool(structured_output=False)
def test_audio_content() -> Audio:
    """Returns a sound of no length."""
    return Audio(data=WAV, format="wav")


@tool(structured_output=False)
def test_embedded_resource() -> EmbeddedResource:
    """Returns an embedded resource."""
    return text_resource("test://embedded-resource", "text/plain", "This is an embedded resource content.")


@tool(structured_output=False)
def test_multiple_content_types() -> list[Any]:
    """Returns text, a picture and a resource."""
    return [
        "Multiple content types test:",
        Image(data=PNG, format="png"),
        text_resource("test://mixed-content-resource", "application/json", '{"test":"data","value":123}'),
    ]


@tool(structured_output=False)
def test_error_handling() -> str:
    """Always fails."""
    raise ToolError("This tool intentionally returns an error for testing")


# --- tools/call: tools that speak while they run


@tool(structured_output=False)
async def test_tool_with_logging(ctx: Context) -> str:
    """Sends three log messages."""
    await ctx.info("Tool execution started")
    await asyncio.sleep(0.05)
    await ctx.info("Tool processing data")
    await asyncio.sleep(0.05)
    await ctx.info("Tool execution completed")
    return "Tool with logging executed"


@tool(structured_output=False)
async def test_logging_tool(ctx: Context) -> str:
    """Sends a log message, which arrives only where the request asked for a level."""
    await ctx.info("a message for those who asked")
    return "logged"


@tool(structured_output=False)
async def test_tool_with_progress(ctx: Context) -> str:
    """Reports progress three times."""
    for progress in (0, 50, 100):
        await ctx.report_progress(progress, 100)
        await asyncio.sleep(0.05)
    return "Tool with progress executed"


@tool(structured_output=False)
async def test_reconnection(ctx: Context) -> str:
    """Closes its own stream, so that the client must come back for the result."""
    await ctx.close_sse_stream()
    await asyncio.sleep(0.1)
    return "Reconnection test completed"


@tool(structured_output=False)
async def test_trigger_tool_change(ctx: Context) -> str:
    """Tells those who listen that the list of tools changed."""
    await ctx.notify_tools_changed()
    return "told"


@tool(structured_output=False)
async def test_trigger_prompt_change(ctx: Context) -> str:
    """Tells those who listen that the list of prompts changed."""
    await ctx.notify_prompts_changed()
    return "told"


# --- handshake era: requests from the server to the client, in the middle of a call


class Contact(BaseModel):
    username: str = Field(description="User's response")
    email: str = Field(description="User's email address")


@tool(structured_output=False)
async def test_elicitation(message: str, ctx: Context) -> str:
    """Asks the user for a name and an address."""
    answer = await ctx.elicit(message, Contact)
    content = answer.data.model_dump() if answer.action == "accept" else {}
    return f"User response: action: {answer.action}, content: {json.dumps(content)}"


@tool(structured_output=False)
async def test_sampling(prompt: str, ctx: Context) -> str:
    """Asks the client's model."""
    messages = [SamplingMessage(role="user", content=TextContent(text=prompt))]
    answer = await ctx.session.create_message(messages, max_tokens=100, related_request_id=ctx.request_id)
    return f"LLM response: {said(answer)}"


async def elicit_raw(ctx: Context, message: str, properties: dict[str, Any]) -> str:
    schema = {"type": "object", "properties": properties, "required": []}
    answer = await ctx.session.elicit_form(message, schema, related_request_id=ctx.request_id)
    return f"Elicitation completed: action={answer.action}, content={json.dumps(answer.content or {})}"


@tool(structured_output=False)
async def test_elicitation_sep1034_defaults(ctx: Context) -> str:
    """Asks with a default value of each primitive type."""
    properties = {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        "verified": {"type": "boolean", "default": True},
    }
    return await elicit_raw(ctx, "Please check these defaults", properties)


@tool(structured_output=False)
async def test_elicitation_sep1330_enums(ctx: Context) -> str:
    """Asks with each of the five kinds of enumeration."""
    names = ["option1", "option2", "option3"]

    def titled(noun: str) -> list[dict[str, str]]:
        ordinals = ("First", "Second", "Third")
        return [{"const": f"value{n}", "title": f"{word} {noun}"} for n, word in enumerate(ordinals, 1)]

    properties = {
        "untitledSingle": {"type": "string", "enum": names},
        "titledSingle": {"type": "string", "oneOf": titled("Option")},
        "legacyEnum": {
            "type": "string",
            "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"],
        },
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": names}},
        "titledMulti": {"type": "array", "items": {"anyOf": titled("Choice")}},
    }
    return await elicit_raw(ctx, "Please choose", properties)


# --- modern era: what the tool needs to know goes out as its result, and comes back with the next call


@tool(structured_output=False)
async def test_input_required_result_elicitation(ctx: Context) -> str | InputRequiredResult:
    """Asks for a name."""
    name = accepted(ctx, "user_name", "name")
    if not isinstance(name, str):
        return InputRequiredResult(input_requests={"user_name": form("What is your name?", name="string")})
    return f"Hello, {name}!"


@tool(structured_output=False)
async def test_input_required_result_sampling(ctx: Context) -> str | InputRequiredResult:
    """Asks the client's model for a capital."""
    answer = (ctx.input_responses or {}).get("capital_question")
    if not isinstance(answer, CreateMessageResult):
        ask = question("What is the capital of France?", max_tokens=100)
        return InputRequiredResult(input_requests={"capital_question": ask})
    return said(answer)


@tool(structured_output=False)
async def test_input_required_result_list_roots(ctx: Context) -> str | InputRequiredResult:
    """Asks for the client's roots."""
    answer = (ctx.input_responses or {}).get("client_roots")
    if not isinstance(answer, ListRootsResult):
        return InputRequiredResult(input_requests={"client_roots": ListRootsRequest()})
    return "Roots: " + ", ".join(str(root.uri) for root in answer.roots)


def confirmed(ctx: Context) -> bool:
    return ctx.request_state == "confirming" and accepted(ctx, "confirm", "ok") is not None


def ask_to_confirm() -> InputRequiredResult:
    return InputRequiredResult(
        input_requests={"confirm": form("Please confirm", ok="boolean")}, request_state="confirming"
    )


@tool(structured_output=False)
async def test_input_required_result_request_state(ctx: Context) -> str | InputRequiredResult:
    """Asks once, and keeps its place in `request_state`."""
    return "state-ok" if confirmed(ctx) else ask_to_confirm()


@tool(structured_output=False)
async def test_input_required_result_tampered_state(ctx: Context) -> str | InputRequiredResult:
    """The same; the SDK refuses a `request_state` that it did not seal before this code is reached."""
    return "confirmed" if confirmed(ctx) else ask_to_confirm()


@tool(structured_output=False)
async def test_input_required_result_multiple_inputs(ctx: Context) -> str | InputRequiredResult:
    """Asks three things at once."""
    requests: dict[str, InputRequest] = {
        "user_name": form("What is your name?", name="string"),
        "greeting": question("Generate a greeting", max_tokens=50),
        "client_roots": ListRootsRequest(),
    }
    if ctx.request_state != "asked" or not requests.keys() <= (ctx.input_responses or {}).keys():
        return InputRequiredResult(input_requests=requests, request_state="asked")
    return f"All known of {accepted(ctx, 'user_name', 'name')}"


@tool(structured_output=False)
async def test_input_required_result_multi_round(ctx: Context) -> str | InputRequiredResult:
    """Asks one thing after the other."""
    state = json.loads(ctx.request_state or "{}")
    name = state.get("name") or accepted(ctx, "step1", "name")
    if name is None:
        ask = {"step1": form("Step 1: What is your name?", name="string")}
        return InputRequiredResult(input_requests=ask, request_state=json.dumps({"round": 1}))
    color = accepted(ctx, "step2", "color")
    if color is None:
        ask = {"step2": form("Step 2: What is your favorite color?", color="string")}
        return InputRequiredResult(input_requests=ask, request_state=json.dumps({"round": 2, "name": name}))
    return f"{name} likes {color}"


@tool(structured_output=False)
async def test_input_required_result_capabilities(ctx: Context) -> str | InputRequiredResult:
    """Asks only in the ways that the client can answer."""
    can = ctx.client_capabilities
    requests: dict[str, InputRequest] = {}
    if can and can.sampling:
        requests["greeting"] = question("Generate a greeting", max_tokens=50)
    if can and can.elicitation:
        requests["user_name"] = form("What is your name?", name="string")
    if not requests or ctx.input_responses:
        return "nothing to ask"
    return InputRequiredResult(input_requests=requests)


@tool(structured_output=False)
async def test_streaming_elicitation(ctx: Context) -> str | InputRequiredResult:
    """Reports progress and then asks; nothing but notifications may come before its result."""
    await ctx.report_progress(1, 2)
    name = accepted(ctx, "user_name", "name")
    if name is None:
        return InputRequiredResult(input_requests={"user_name": form("What is your name?", name="string")})
    return f"Hello, {name}!"


def ask_model() -> Sample:
    return Sample([SamplingMessage(role="user", content=TextContent(text="Anything"))], max_tokens=10)


@tool(structured_output=False)
async def test_missing_capability(answer: Annotated[CreateMessageResult, Resolve(ask_model)]) -> str:
    """Needs a model; the SDK refuses the call of a client that has none."""
    return said(answer)


@tool(structured_output=False)
async def test_custom_headers(region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})]) -> str:
    """Takes an argument that also travels as a header."""
    return f"in {region}"


# --- resources


@server.resource("test://static-text", description="A text that never changes", mime_type="text/plain")
def static_text() -> str:
    return "This is the content of the static text resource."


@server.resource("test://static-binary", description="A picture of one pixel", mime_type="image/png")
def static_binary() -> bytes:
    return PNG


@server.resource("test://watched-resource", description="A resource to subscribe to", mime_type="text/plain")
def watched_resource() -> str:
    return "Watched resource content"


@server.resource("test://template/{id}/data", description="Data by id", mime_type="application/json")
def template_data(id: str) -> str:
    return json.dumps({"id": id, "templateTest": True, "data": f"Data for ID: {id}"}, separators=(",", ":"))


# --- prompts


@server.prompt(description="A prompt without arguments")
def test_simple_prompt() -> str:
    return "This is a simple prompt for testing."


@server.prompt(description="A prompt with two arguments")
def test_prompt_with_arguments(arg1: str, arg2: str) -> str:
    return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"


@server.prompt(description="A prompt with a resource in it")
def test_prompt_with_embedded_resource(resourceUri: str) -> list[Message]:  # noqa: N803
    return [
        UserMessage(text_resource(resourceUri, "text/plain", "Embedded resource content for testing.")),
        UserMessage("Please process the embedded resource above."),
    ]


@server.prompt(description="A prompt with a picture in it")
def test_prompt_with_image() -> list[Message]:
    image = ImageContent(data=base64.b64encode(PNG).decode(), mime_type="image/png")
    return [UserMessage(image), UserMessage("Please analyze the image above.")]


@server.prompt(description="A prompt that asks before it answers")
async def test_input_required_result_prompt(ctx: Context) -> list[Message] | InputRequiredResult:
    context = accepted(ctx, "user_context", "context")
    if context is None:
        ask = form("What context should the prompt use?", context="string")
        return InputRequiredResult(input_requests={"user_context": ask})
    return [UserMessage(f"In the context of {context}"), AssistantMessage("Go on.")]


# --- completion, log level, subscriptions


@server.completion()
async def complete(ref: Any, argument: Any, context: Any) -> Completion:
    values = [value for value in ("paris", "park", "party") if value.startswith(argument.value)]
    return Completion(values=values, total=len(values), has_more=False)


async def accept(ctx: Any, params: Any) -> EmptyResult:
    return EmptyResult()


# `MCPServer` has no decorator for the methods that 2026-07-28 removed; the SDK's documentation sends their users here.
lowlevel = server._lowlevel_server
lowlevel.add_request_handler("logging/setLevel", SetLevelRequestParams, accept)
lowlevel.add_request_handler("resources/subscribe", SubscribeRequestParams, accept)
lowlevel.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, accept)
