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
print(json.dumps({"openai": openai_client, "pydantic_ai": pydantic_ai, "lm_eval": lm_eval}[name](url)))
