#!/bin/sh
# Write requirements/*.lock: every package that `make` installs, for every platform, by hash, from no named index.
set -eu
uv="$1"
compile() {
    "$uv" pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
        --no-annotate --custom-compile-command "make lock" "$@"
}
compile --extra dev --override requirements/no-torch.txt --no-emit-package torch pyproject.toml --output-file requirements/base.lock
echo 'torch>=2.4' | compile --constraints requirements/base.lock - --output-file requirements/torch.lock
echo 'uv' | compile --constraints requirements/base.lock - --output-file requirements/uv.lock
# Containers: the aggregator's without the broker's and the developer's packages, and what builds the wheel.
compile --constraints requirements/base.lock --extra fast --extra kubernetes pyproject.toml --output-file requirements/image.lock
echo 'hatchling' | compile --constraints requirements/base.lock - --output-file requirements/build.lock
# Validators of Kubernetes manifests, in an environment of their own: they pull in a hundred packages.
printf 'checkov\nkubernetes-validate\n' | compile - --output-file requirements/k8s-tools.lock
