#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# ansible-test sanity over the collection as it is shipped: the executor's sources, bpf/, tools/, molecule/ and tests/ are no Ansible
# content and have linters of their own (ruff, mypy, clang). ansible-test wants a path that ends in ansible_collections/NAMESPACE/NAME
# and asks git for the files, so the files go to build/sanity as a repository of their own.
#
# Arguments go to ansible-test: tests/sanity/run.sh --test validate-modules
# Runs without docker. ansible-test itself leaves out pslint (there is no PowerShell here) and, without docker, the interpreters that
# are not installed; the plugins are compiled and imported with the Python that runs ansible-test.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-$(command -v python3)}
copy=$root/build/sanity/ansible_collections/ebpf/datapath

rm -rf "$copy"
mkdir -p "$copy"
cd "$root"
{
    git ls-files -co --exclude-standard -- . ':!executor/datapath' ':!bpf' ':!tools' ':!tests' ':!molecule' ':!collections/ansible_collections'
    git ls-files -co --exclude-standard -- tests/sanity
} |
    while IFS= read -r file; do
        # A file that was deleted and not committed yet is still listed.
        [ ! -e "$file" ] || printf '%s\n' "$file"
    done | tar -c -T - | tar -x -C "$copy"

# ansible-test makes its environments below HOME and downloads a script that installs pip into them. Here Python's own ensurepip does that,
# so that only the package index is asked; a home of its own keeps the user's cache as it is.
home=$root/build/sanity/home
mkdir -p "$home/.ansible/test/cache" "$home/.config"
for configuration in .config/pip .pip; do
    [ ! -d "$HOME/$configuration" ] || ln -sfn "$HOME/$configuration" "$home/$configuration"
done
cat >"$home/.ansible/test/cache/get_pip_24_2.py" <<'END'
import runpy, subprocess, sys
# In a process of its own: ensurepip switches off pip's configuration where it runs.
subprocess.run([sys.executable, "-m", "ensurepip"], check=True, stdout=subprocess.DEVNULL)
sys.argv = ["pip", "install"] + [word for word in sys.argv[1:] if word not in ("--no-setuptools", "--no-wheel")]
runpy.run_module("pip.__main__", run_name="__main__", alter_sys=True)
END

cd "$copy"
git init -q
release=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
export HOME="$home"
exec "$python" -m ansible test sanity --python "$release" --color no "$@"
