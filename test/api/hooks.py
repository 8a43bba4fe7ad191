"""What a valid request is, beyond what openapi.yaml can say: this server's own limits, and rules between fields.

Requests that are meant to be valid are brought within them, so that they reach the model; a refusal then is a failure.
"""

import schemathesis

VOCAB_SIZE = 4096
MAX_OUTPUT_TOKENS = 32

TOKEN_COUNTS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "min_tokens")
# What an answer may be held to.
CONSTRAINTS = (
    *("response_format", "text", "tools", "structured_outputs"),
    *("guided_json", "guided_regex", "guided_choice", "guided_grammar", "grammar", "json_schema"),
)
# A valid request may be refused for what it names, or for what it comes to, and not for its form.
ANSWERED_WITH_REASON = {
    "previous_response_not_found",
    "context_length_exceeded",
    "invalid_snapshot",
    "body_too_large",
    "upgrade_required",
}


def clamp(body, key, most):
    if isinstance(body.get(key), (int, float)) and not isinstance(body[key], bool):
        body[key] = min(int(body[key]), most)


def token_ids(value):
    if isinstance(value, list):
        return [token_ids(item) for item in value]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return int(value) % VOCAB_SIZE
    return value


def narrow_tools(body):
    """Names differ and are known; a result follows its call."""
    in_chat = "input" not in body
    named = lambda name: {"type": "function", **({"function": {"name": name}} if in_chat else {"name": name})}
    tools, choice = body.get("tools"), body.get("tool_choice")
    if tools:
        body["tools"] = [named(f"tool_{index}") for index in range(len(tools))]
    elif choice != "none":
        body.pop("tool_choice", None)
    if tools and isinstance(choice, dict):
        allowed = choice.get("allowed_tools") if in_chat else choice
        if choice.get("type") == "allowed_tools":
            allowed["tools"] = [named("tool_0")]
        else:
            body["tool_choice"] = named("tool_0")
    for message in body.get("messages") or []:
        message.pop("tool_call_id", None)
        if isinstance(message.get("tool_calls"), list):
            message["tool_calls"] = message["tool_calls"][:4]
    if isinstance(body.get("messages"), list):
        # JSON is bounded as a whole.
        body["messages"] = body["messages"][:64]
    if isinstance(body.get("input"), list):
        called = {"type": "function_call", "name": "f", "arguments": "{}"}
        outputs = [item for item in body["input"] if item.get("type") == "function_call_output"]
        body["input"] = [{**called, "call_id": item["call_id"]} for item in outputs] + body["input"]
        # Reasoning and calls may come to nothing.
        body["input"].append({"role": "user", "content": "Hi"})


def narrow_messages(body):
    """Of Anthropic's API: names of tools differ and are known; there are no results of calls that were not made."""
    tools, choice = body.get("tools"), body.get("tool_choice")
    if tools:
        body["tools"] = [{"name": f"tool_{index}"} for index in range(min(len(tools), 4))]
    if not tools:
        body.pop("tool_choice", None)
    elif isinstance(choice, dict) and choice.get("type") == "tool":
        choice["name"] = "tool_0"
    if isinstance(body.get("output_config"), dict) and body["output_config"].get("format") is not None:
        body["output_config"]["format"]["schema"] = {"type": "object"}
    for message in body.get("messages") or []:
        if isinstance(message.get("content"), list):
            blocks = [block for block in message["content"] if block["type"] == "text"]
            message["content"] = blocks[:4] or "Hi"
    if isinstance(body.get("messages"), list):
        body["messages"] = body["messages"][:64]


def narrow_constraints(body):
    """One at a time, and one that means something."""
    valid = {
        "structured_outputs": {"json_object": True},
        "guided_json": {"type": "object"},
        "guided_regex": "[a-z]+",
        "guided_choice": ["a", "b"],
        "guided_grammar": 'root ::= "a"',
        "grammar": 'root ::= "a"',
        "json_schema": {"type": "object"},
        "response_format": {"type": "json_object"},
    }
    given = [key for key in valid if body.get(key) is not None]
    for key in given[1:]:
        body.pop(key)
    if given and not (isinstance(body[given[0]], dict) and body[given[0]].get("type") == "text"):
        body[given[0]] = valid[given[0]]
    if isinstance(body.get("text"), dict) and body["text"].get("format") is not None:
        body["text"]["format"] = {"type": "text" if given else "json_object"}


def narrow(body, is_anthropic):
    for key in TOKEN_COUNTS:
        clamp(body, key, MAX_OUTPUT_TOKENS)
    if body.get("max_tokens") == 0:
        body["max_tokens"] = 1
    most = next((body[key] for key in TOKEN_COUNTS[:3] if body.get(key) is not None), 16)
    clamp(body, "min_tokens", MAX_OUTPUT_TOKENS if most == -1 else most)
    if any(body.get(key) for key in CONSTRAINTS):
        body.pop("bad_words", None)
    if any(body.get(key) for key in (*CONSTRAINTS, "bad_words", "min_tokens")):
        # Together they may leave no token to choose.
        body.pop("allowed_token_ids", None)
    if "text_2" in body and body.get("session_id") is not None:
        body.pop("previous_response_id", None)
    for key in ("prompt", "tokens", "stop_token_ids", "allowed_token_ids"):
        if isinstance(body.get(key), list):
            body[key] = token_ids(body[key])
    if isinstance(body.get("prompt"), list):
        body["prompt"] = body["prompt"][:4]
    if body.get("prompt") == "":
        body["prompt"] = "Once"
    for key in ("n", "best_of"):
        clamp(body, key, 4)
    if body.get("best_of") is not None:
        body["best_of"] = body.get("n") or 1
    if isinstance(body.get("logit_bias"), dict):
        biases = body["logit_bias"].items()
        body["logit_bias"] = {str(index): bias for index, (_, bias) in enumerate(biases)}
    if body.get("stream") is not True:
        body.pop("stream_options", None)
    else:
        body.pop("prompt_logprobs", None)
    if "messages" in body and body.get("logprobs") is not True:
        body.pop("top_logprobs", None)
    if body.get("session_id") is not None and ("prompt" in body or "messages" in body):
        body["n"] = body["best_of"] = 1
        if isinstance(body.get("prompt"), list):
            body["prompt"] = "Once"
        if "messages" in body:
            body.pop("best_of")
    if body.get("continue_final_message"):
        body["add_generation_prompt"] = False
    body.pop("chat_template", None)
    body.pop("chat_template_kwargs", None)
    if is_anthropic:
        narrow_messages(body)
    else:
        narrow_tools(body)
        narrow_constraints(body)
    if isinstance(body.get("items"), list):
        # So many that their members stay below the bound on those of a body.
        body["items"] = body["items"][:1000]
    if "input" in body:
        body["include"] = ["message.output_text.logprobs"] if body.get("top_logprobs") else None
        if isinstance(body["input"], list):
            # Items without any text are no input.
            body["input"].append({"role": "user", "content": "Hi"})
        if body.get("background"):
            body["store"] = True
    return body


@schemathesis.hook
def before_call(context, case, **kwargs):
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if case.operation.path == "/v1/embeddings":
        case.body["input"] = token_ids(case.body["input"])
    elif isinstance(case.body, dict):
        narrow(case.body, is_anthropic=case.operation.path.startswith("/v1/messages"))
    if isinstance(case.query, dict):
        # A cursor is the id of an item, and an event's number is that of one that was sent.
        case.query.pop("after", None)
        case.query.pop("starting_after", None)


@schemathesis.check
def valid_requests_are_taken(context, response, case):
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if response.status_code not in (400, 413, 415, 426):
        return
    error = response.json()["error"]
    if response.status_code == 426 or error.get("code") in ANSWERED_WITH_REASON:
        return
    raise AssertionError(f"a valid request was refused: {error['message']}")
