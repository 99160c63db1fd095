#!/bin/sh
# sh docs/site/draw.sh PAGE: draws the Mermaid diagram of a page into docs/images/, by npm's mermaid in Chromium. The site
# shows that picture, since Mermaid itself is 3.6 MB of script. The file's name has a digest of the diagram.
set -eu
docs="$(cd "$(dirname "$0")/.." && pwd)" page="$(realpath "$1")"
cd "$(mktemp -d)"
npm pack --silent mermaid@11 > /dev/null
tar xzf mermaid-*.tgz package/dist/mermaid.min.js
sed -n '/^```mermaid$/,/^```$/p' "$page" | sed '1d;$d' > diagram
cat > page.html <<END
<meta charset="utf-8"><pre id="source">$(sed 's/&/\&amp;/g; s/</\&lt;/g' diagram)
</pre><script src="package/dist/mermaid.min.js"></script><script>
mermaid.initialize({startOnLoad: false, theme: "neutral", fontFamily: "sans-serif", flowchart: {htmlLabels: false}});
mermaid.render("drawn", document.getElementById("source").textContent)
    .then(({svg}) => document.body.replaceChildren(Object.assign(document.createElement("textarea"), {textContent: svg})));
</script>
END
chromium --headless --no-sandbox --disable-gpu --virtual-time-budget=20000 --dump-dom "file://$PWD/page.html" 2> /dev/null \
    | python3 -c "import html, re, sys; print(html.unescape(re.search('<textarea>(.*)</textarea>', sys.stdin.read(), re.S)[1]).replace('<br>', '<br/>'))" \
    > drawn.svg
cp drawn.svg "$docs/images/diagram-$(sha256sum diagram | cut -c1-8).svg"
