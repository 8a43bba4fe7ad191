#!/bin/sh
# The whole recipe in one command:  ./run.sh CORPUS_FOLDER RUN_FOLDER [TOKENS]
# Every stage is skipped or resumed where its result exists, so the command can be stopped and given again.
set -eu
corpus=$(realpath "$1"); mkdir -p "$2"; run=$(realpath "$2"); tokens=${3:-50e6}
cd "$(dirname "$0")"
. ./env.sh
share() { python3 -c "print($tokens * $1)"; }
[ -f "$run/data/validation.json" ] || python3 prepare.py --corpus "$corpus" --out "$run/data"
python3 train.py --data "$run/data" --run "$run/flat" --tokens "$(share 0.58)"
# The texts have been read several times by now: dropout, and a lower rate.
gently="--decay 0.05 --muon-lr 0.012 --adam-lr 0.0024"
python3 train.py --data "$run/data" --run "$run/gently" --from "$run/flat/last.pt" --tokens "$(share 0.74)" --dropout 0.1 $gently
python3 train.py --data "$run/data" --run "$run/cooled" --from "$run/gently/last.pt" --tokens "$(share 0.96)" --cool "$(share 0.16)" --dropout 0.05 $gently \
  --mix '{"stories": 0.10, "tales": 0.17, "books": 0.12, "reading": 0.02, "topical": 0.03, "smalltalk": 0.02, "telling": 0.04, "made": 0.34, "told": 0.08, "talk": 0.08}'
python3 train.py --data "$run/data" --run "$run/told" --from "$run/cooled/last.pt" --tokens "$(share 1)" --cool "$(share 0.04)" --dropout 0.02 --decay 0.05 --muon-lr 0.006 --adam-lr 0.0012 \
  --mix '{"stories": 0.09, "tales": 0.12, "books": 0.06, "reading": 0.01, "topical": 0.02, "smalltalk": 0.03, "telling": 0.03, "made": 0.42, "told": 0.10, "talk": 0.12}'
python3 plot.py "$run/flat/log.jsonl" "$run/gently/log.jsonl" "$run/cooled/log.jsonl" "$run/told/log.jsonl" --out "$run/curve.svg"
python3 export.py "$run/told/last.pt" --data "$run/data" --out "$run/model" --dtype float16
