"""Python clients, unmodified, against a running server: `clients.py NAME URL` prints what NAME found as JSON."""

import asyncio
import json
import os
import pathlib
import sys
import tempfile

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", OPENAI_API_KEY="sk-test", TOKENIZERS_PARALLELISM="false")

MODEL = "fake-4m"
ASK = "Tell me of the sea."


def openai_client(url):
    from openai import BadRequestError, OpenAI

    client = OpenAI(base_url=f"{url}/v1", max_retries=0)
    messages = [{"role": "user", "content": ASK}]
    settings = {"model": MODEL, "temperature": 0}
    chat = client.chat.completions.create(messages=messages, max_completion_tokens=12, logprobs=True, **settings)
    stream = client.chat.completions.create(
        messages=messages, max_completion_tokens=12, stream=True, stream_options={"include_usage": True}, **settings
    )
    chunks = list(stream)
    response = client.responses.create(input=ASK, max_output_tokens=12, **settings)
    continued = client.responses.create(
        input="And then?", previous_response_id=response.id, max_output_tokens=12, **settings
    )
    with client.responses.stream(input=ASK, max_output_tokens=12, **settings) as events:
        last = list(events)[-1]
    try:
        client.chat.completions.create(messages=[{"role": "user", "content": "sea " * 3000}], model=MODEL)
        code = None
    except BadRequestError as error:
        code = error.code
    return {
        "models": [model.id for model in client.models.list()],
        "chat": chat.choices[0].message.content,
        "numLogprobs": len(chat.choices[0].logprobs.content),
        "streamed": "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices),
        "usage": chunks[-1].usage.completion_tokens,
        "response": response.output_text,
        "streamedResponse": last.response.output_text,
        "lastEvent": last.type,
        "cachedTokens": continued.usage.input_tokens_details.cached_tokens,
        "inputTokens": client.responses.input_tokens.count(input=ASK).input_tokens == response.usage.input_tokens,
        "refusal": code,
    }


def pydantic_ai(url):
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
    from pydantic_ai.providers.openai import OpenAIProvider

    provider = OpenAIProvider(base_url=f"{url}/v1", api_key="sk-test")
    found = {}
    for kind in (OpenAIChatModel, OpenAIResponsesModel):
        agent = Agent(kind(MODEL, provider=provider), model_settings={"temperature": 0, "max_tokens": 12})
        first = agent.run_sync(ASK)
        second = agent.run_sync("And then?", message_history=first.all_messages())

        async def stream():
            async with agent.run_stream(ASK) as result:
                return [text async for text in result.stream_text(delta=True, debounce_by=None)]

        texts = asyncio.run(stream())
        found[kind.__name__] = {
            "text": first.output,
            "streamed": "".join(texts),
            "grows": second.usage.input_tokens > first.usage.input_tokens,
        }
    return found


def openai_agents(url):
    from agents import (Agent, ModelSettings, OpenAIChatCompletionsModel, OpenAIConversationsSession,
                        OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled)
    from openai import AsyncOpenAI

    set_tracing_disabled(True)
    client = AsyncOpenAI(base_url=f"{url}/v1", max_retries=0)
    crowned = []

    @function_tool
    def crown(name: str) -> str:
        """Crowns a king."""
        crowned.append(name)
        return "It is done."

    # An answer that max_tokens cuts is an error to it: these end by themselves.
    ending = {"logit_bias": {"2": 100}, "min_tokens": 8}

    def agent_of(kind, settings={}, **more):
        settings = ModelSettings(temperature=0, max_tokens=200, **{"extra_body": ending, **settings})
        return Agent(name="teller", model=kind(MODEL, openai_client=client), model_settings=settings, **more)

    async def talk(kind):
        agent = agent_of(kind)
        streamed = Runner.run_streamed(agent, ASK)
        async for _ in streamed.stream_events():
            pass
        forced = {"tool_choice": "required", "parallel_tool_calls": False, "extra_body": {"seed": 1}}
        caller = agent_of(kind, forced, tools=[crown], tool_use_behavior="stop_on_first_tool")
        await Runner.run(caller, "Crown a king.")
        return {"text": (await Runner.run(agent, ASK)).final_output, "streamed": streamed.final_output}

    async def converse():
        agent = agent_of(OpenAIResponsesModel)
        session = OpenAIConversationsSession(openai_client=client)
        await Runner.run(agent, ASK, session=session)
        second = await Runner.run(agent, "And then?", session=session)
        items = await session.get_items()
        await session.pop_item()
        conversation = await client.conversations.create()
        await Runner.run(agent, ASK, conversation_id=conversation.id)
        same = await Runner.run(agent, "And then?", conversation_id=conversation.id)
        return {
            "roles": [item["role"] for item in items],
            "rolesAfterPop": [item["role"] for item in await session.get_items()],
            "text": second.final_output,
            "sameText": same.final_output,
            "cachedTokens": same.raw_responses[-1].usage.input_tokens_details.cached_tokens,
        }

    async def everything():
        found = {kind.__name__: await talk(kind) for kind in (OpenAIResponsesModel, OpenAIChatCompletionsModel)}
        return {**found, "conversation": await converse()}

    return {**asyncio.run(everything()), "crowned": crowned}


TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: {output_type}
doc_to_text: "{{{{text}}}}"
{more}
metric_list: [{{metric: {metric}, aggregation: mean, higher_is_better: true}}]
"""

DOCUMENTS = [
    {"text": "The king lived in a", "choices": ["castle", "puddle"], "label": 0},
    {"text": "The ship went over the", "choices": ["sea", "zebra crossing"], "label": 0},
]


def lm_eval(url):
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "data.jsonl")
        file.write_text("".join(json.dumps(document) + "\n" for document in DOCUMENTS))
        choice = {"output_type": "multiple_choice", "metric": "acc"}
        choice["more"] = 'doc_to_choice: "{{choices}}"\ndoc_to_target: label'
        writing = {"output_type": "generate_until", "metric": "exact_match"}
        writing["more"] = 'doc_to_target: "{{choices[0]}}"\ngeneration_kwargs: {until: ["."], max_gen_toks: 8}'
        for name, fields in (("choice", choice), ("writing", writing)):
            task = TASK.format(name=name, file=file, **fields)
            pathlib.Path(folder, f"{name}.yaml").write_text(task)
        results = simple_evaluate(
            model="local-completions",
            model_args={
                "model": MODEL,
                "base_url": f"{url}/v1/completions",
                "tokenizer_backend": "remote",
                "num_concurrent": 2,
                "max_length": 2000,
            },
            tasks=["choice", "writing"],
            task_manager=TaskManager(include_path=folder, include_defaults=False),
            bootstrap_iters=0,
        )
    samples = results["samples"]
    return {
        "choices": [[float(score[0][0]) for score in sample["resps"]] for sample in samples["choice"]],
        "texts": [sample["resps"][0][0] for sample in samples["writing"]],
    }


name, url = sys.argv[1:]
clients = {"openai": openai_client, "openai_agents": openai_agents, "pydantic_ai": pydantic_ai, "lm_eval": lm_eval}
print(json.dumps(clients[name](url)))
