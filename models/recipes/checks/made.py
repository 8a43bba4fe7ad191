"""What tales.py and talk.py compose: whole, well-formed, the same for a seed, and without what the model is tested with.

  python checks/made.py [--count N]
"""
import argparse
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
import tales
import talk
from sample import QUESTIONS, STORIES

WRONG = [r"[{}\[\]|@~]", r"\b(\w+) \1\b(?<!had had)(?<!that that)", r"  ", r"\ba [aeio]", r"\ban [^aeiouh]", r" [.,!?]", r"\.\.", r"[.!?] [a-z]"]


def faults(text):
    spoken = re.sub(r'[.!?]" [a-z]', "", text)  # "…!" cried he
    return [pattern for pattern in WRONG if re.search(pattern, spoken)] + ["quotes"] * (text.count('"') % 2)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=3000)
    count = parser.parse_args().count
    stories, dialogues = list(tales.stories(count)), list(talk.dialogues(count))
    assert stories == list(tales.stories(count)) and dialogues == list(talk.dialogues(count)), "a seed gives the same twice"
    texts = [text for _, text in stories]
    lines = [message for messages in dialogues for message in messages]
    wrong = [(text, faults(text)) for text in texts if faults(text)]
    assert not wrong, f"{len(wrong)} tales of {count}, such as {wrong[0]}"
    assert not any(text.startswith(tuple(STORIES)) for text in texts), "the beginnings in sample.py are for testing"
    assert all([m["role"] for m in messages] == ["user", "assistant"] * (len(messages) // 2) for messages in dialogues)
    asked = {talk.plain(question) for question in QUESTIONS}
    assert not any(m["role"] == "user" and talk.plain(m["content"]) in asked for m in lines), "the questions in sample.py are for testing"
    openings = len({" ".join(text.split()[:5]) for text in texts})
    answers = len({m["content"] for m in lines if m["role"] == "assistant"})
    print(f"{count} tales with {openings} beginnings of five words, {count} dialogues with {answers} answers: well-formed")


if __name__ == "__main__":
    main()
