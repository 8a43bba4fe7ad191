#!/bin/sh
# The whole recipe in one command:  ./run.sh CORPUS_FOLDER RUN_FOLDER [TOKENS]
# Every stage is skipped or resumed where its result exists, so the command can be stopped and given again.
# A packed checkpoint (train.py --pack) put into RUN_FOLDER/flat/last.pt, and its tokenizer.json into RUN_FOLDER/data, go on on another machine.
set -eu
corpus=$(realpath "$1"); mkdir -p "$2"; run=$(realpath "$2"); tokens=${3:-80e6}
cd "$(dirname "$0")"
. ./env.sh
share() { python3 -c "print($tokens * $1)"; }
[ -f "$run/data/validation.json" ] || python3 prepare.py --corpus "$corpus" --out "$run/data"
# Old tales first.
python3 train.py --data "$run/data" --run "$run/flat" --tokens "$(share 0.5)"
# The texts have been read several times by now: dropout, and a lower rate.
gently="--decay 0.05 --muon-lr 0.012 --adam-lr 0.0024"
python3 train.py --data "$run/data" --run "$run/gently" --from "$run/flat/last.pt" --tokens "$(share 0.75)" --dropout 0.1 $gently
# Cooled on modern stories and dialogues.
python3 train.py --data "$run/data" --run "$run/cooled" --from "$run/gently/last.pt" --tokens "$(share 1)" --cool "$(share 0.2)" --dropout 0.05 $gently \
  --mix '{"stories": 0.11, "tales": 0.13, "books": 0.08, "reading": 0.01, "telling": 0.04, "tiny": 0.11, "picture": 0.08, "fables": 0.09, "telling-modern": 0.13,
          "persona": 0.10, "topical": 0.04, "smalltalk": 0.02, "tasks": 0.03, "campsite": 0.02, "instructions": 0.01}'
python3 plot.py "$run/flat/log.jsonl" "$run/gently/log.jsonl" "$run/cooled/log.jsonl" --out "$run/curve.svg"
python3 export.py "$run/cooled/last.pt" --data "$run/data" --out "$run/model" --dtype float16
