#!/usr/bin/env bash
# Makes the environment of one recipe (examples/recipes) in .tools/recipes/NAME, unless it is there and its list of
# packages has not changed: scripts/recipe-env.sh NAME. Those that name Milepost's own mcp share it with this checkout.
set -euo pipefail
cd "$(dirname "$0")/.."

name=$1
list=examples/recipes/requirements/$name.txt
env=.tools/recipes/$name
UV=$(command -v uv || echo .tools/bin/uv)

want=$(cat "$list" pyproject.toml | sha256sum)
[[ -x $env/bin/python && "$(cat "$env/.made" 2>/dev/null)" == "$want" ]] && exit 0
echo "# making $env: $(grep -o '^[^#]*' "examples/recipes/requirements/$name.in" | xargs)"
rm -rf "$env"
"$UV" venv --quiet --python .venv/bin/python "$env"
"$UV" pip install --quiet --python "$env/bin/python" -r "$list"
if grep -q "$(grep '^mcp==' "$list")" <("$UV" pip freeze --python .venv/bin/python); then
    "$UV" pip install --quiet --python "$env/bin/python" --no-deps -e .
fi
echo "$want" >"$env/.made"
