"""What a served model writes: 20 beginnings of stories gone on with, 20 questions answered over chat; Markdown for its card.

  npx densemamba serve --model MODEL_FOLDER        # in another terminal
  python sample.py [--url http://127.0.0.1:8080] [--temperature 0.8] [--top-p 0.95] [--tokens 150]

Each text is the first that its seed gives, its place in the list: nothing is chosen.
"""
import argparse
import json
import urllib.request

STORIES = [
    "Once upon a time there was a poor woodcutter", "Once upon a time there was a princess", "In a village by the sea there lived an old fisherman",
    "The king had three daughters, and the youngest", "A fox met a hare on the road.", "Long ago, when wishes still came true,",
    "There was once a miller who had a son", "A little girl lived with her grandmother", "An old soldier was walking home from the war",
    "The giant lived in a castle on the hill", "There was once a tailor", "A mouse and a frog", "One cold winter's night the shepherd",
    "The queen looked into the well", "A poor widow had one cow", "In the middle of the forest stood a hut", "There were once two brothers,",
    "The little bird sat in the cage", "A merchant set out on a long journey", "The prince rode into the dark forest",
]
QUESTIONS = [
    "Hello!", "Hi, how are you?", "Good morning!", "What is your name?", "Who are you?", "Are you a robot?", "How old are you?", "Where are you from?",
    "What can you do?", "Can you help me?", "Do you like stories?", "Do you like music?", "What do you like to do?", "Tell me a joke.",
    "Tell me a story about a fox.", "I am sad today.", "You are very clever.", "Thank you!", "Good night!", "Goodbye!",
]


def post(url, path, body):
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["choices"][0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--top-p", type=float, default=0.95)
    parser.add_argument("--tokens", type=int, default=150)
    args = parser.parse_args()
    sampling = {"temperature": args.temperature, "top_p": args.top_p, "max_tokens": args.tokens}
    for number, text in enumerate(STORIES, 1):
        written = post(args.url, "/v1/completions", {"prompt": text, "seed": number, **sampling})["text"]
        print(f"{number}. **{text}**{' '.join(written.split(chr(10)))}\n")
    for number, text in enumerate(QUESTIONS, 1):
        message = post(args.url, "/v1/chat/completions", {"messages": [{"role": "user", "content": text}], "seed": number, **sampling})["message"]
        print(f"{number}. **{text}** {' '.join(message['content'].split())}\n")


if __name__ == "__main__":
    main()
