#!/bin/sh
# sh docs/site/gallery.sh NAME=RUN ...: copies the report of each finished run into docs/gallery/, with a picture of its top.
set -eu
gallery="$(cd "$(dirname "$0")/../gallery" && pwd)"
for given; do
    name="${given%%=*}" run="$(cd "${given#*=}" && pwd)"
    sed "s|$(dirname "$run")/||g" "$run/report/report.html" > "$gallery/$name.html" # no paths of this machine
    chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1200,868 \
        --screenshot="$gallery/$name.png" "file://$gallery/$name.html" 2> /dev/null
done
