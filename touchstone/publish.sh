#!/bin/sh
# `make publish`: commits what is in reports/ to the branch `reports` and pushes it; the work tree is not touched.
# `make history`: brings the history that is on that branch back into reports/history. REMOTE names the remote.
set -eu
cd "$(dirname "$0")/.."
remote=${REMOTE:-origin}
branch=reports

fetch() { git fetch --quiet --no-tags "$remote" "$branch" 2>/dev/null; }

case ${1:-} in
history)
    if ! fetch; then
        echo "history: $remote has no branch $branch that can be reached; the trend starts here"
    elif git rev-parse --quiet --verify FETCH_HEAD:history >/dev/null; then
        mkdir -p reports
        git archive FETCH_HEAD history | tar -x -C reports
        echo "history: $(find reports/history -type f | wc -l | tr -d ' ') files from the branch $branch"
    else
        echo "history: the branch $branch has none yet"
    fi
    ;;
push)
    if [ ! -f reports/scoreboard.md ]; then
        echo "publish: reports/scoreboard.md is not there (make nightly or make scoreboard writes it)" >&2
        exit 1
    fi
    measured=$(git rev-parse --short HEAD)
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    # A commit made of reports/ alone, through an index of its own: no checkout, no local branch.
    repository=$(git rev-parse --absolute-git-dir)
    export GIT_INDEX_FILE="$scratch/index"
    (cd reports && git --git-dir="$repository" --work-tree=. add --all --force .)
    tree=$(git write-tree)
    unset GIT_INDEX_FILE
    parent=
    if fetch; then parent=$(git rev-parse FETCH_HEAD); fi
    if [ -n "$parent" ] && [ "$tree" = "$(git rev-parse "$parent^{tree}")" ]; then
        echo "publish: nothing new"
        exit 0
    fi
    export GIT_AUTHOR_NAME="${GIT_AUTHOR_NAME:-touchstone}" GIT_AUTHOR_EMAIL="${GIT_AUTHOR_EMAIL:-touchstone@localhost}"
    export GIT_COMMITTER_NAME="$GIT_AUTHOR_NAME" GIT_COMMITTER_EMAIL="$GIT_AUTHOR_EMAIL"
    made=$(git commit-tree "$tree" ${parent:+-p "$parent"} -m "Scoreboard of $measured")
    git push --quiet "$remote" "$made:refs/heads/$branch"
    echo "publish: pushed the scoreboard of $measured to $branch"
    ;;
*)
    echo "usage: publish.sh history|push" >&2
    exit 2
    ;;
esac
