#!/bin/sh
# The whole recipe in one command:  ./run.sh CORPUS_FOLDER RUN_FOLDER [TOKENS]
# Every stage is skipped or resumed where its result exists, so the command can be stopped and given again.
set -eu
corpus=$(realpath "$1"); mkdir -p "$2"; run=$(realpath "$2"); tokens=${3:-40e6}
cd "$(dirname "$0")"
. ./env.sh
[ -f "$run/data/validation.json" ] || python3 prepare.py --corpus "$corpus" --out "$run/data"
python3 train.py --data "$run/data" --run "$run/flat" --tokens "$tokens"
python3 train.py --data "$run/data" --run "$run/cooled" --from "$run/flat/last.pt" \
  --tokens "$(python3 -c "print($tokens * 1.2)")" --cool "$(python3 -c "print($tokens * 0.2)")" \
  --mix '{"stories": 0.16, "tales": 0.32, "books": 0.24, "reading": 0.06, "topical": 0.09, "smalltalk": 0.06, "telling": 0.07}'
python3 plot.py "$run/flat/log.jsonl" "$run/cooled/log.jsonl" --out "$run/curve.svg"
python3 blend.py "$run/flat/last.pt" "$run/cooled/last.pt" --out "$run/blend.pt"
python3 export.py "$run/blend.pt" --data "$run/data" --out "$run/model" --dtype float16
