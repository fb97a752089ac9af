#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Write the documentation as a site: the pages of docs/ and the reference that ansible-doc knows, in .build/site/index.html.
# Nothing is fetched, and a warning is an error.
set -euo pipefail
cd "$(dirname "$0")/../.."
pages=.build/site-pages

rm -rf "$pages" .build/site
mkdir -p "$pages/reference"
chmod go-w "$pages/reference" # antsibull-docs insists on it
cp docs/*.md docs/site/conf.py docs/site/index.md "$pages"
export ANSIBLE_COLLECTIONS_PATH=$PWD/.build/collections
antsibull-docs collection --use-current --squash-hierarchy --fail-on-error --dest-dir "$pages/reference" neuronops.vllm
sphinx-build --quiet --fail-on-warning --keep-going --jobs auto --builder html "$pages" .build/site
echo "The site is in .build/site/index.html"
