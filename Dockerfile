# `kata grade`, and a worker of a Dask cluster for it, in one image. No test of ours builds it.
#
#   docker build -t kata .
#   docker run --rm --security-opt seccomp=unconfined --security-opt systempaths=unconfined \
#     -v "$PWD/submissions:/in:ro" -v "$PWD/grades:/out" kata grade /in --out /out
#
# The two options let bubblewrap make its own namespaces and its own /proc inside the container; on
# Ubuntu's kernels `--security-opt apparmor=unconfined` as well. `docker run ... kata doctor` tries
# each layer. /out must be writable for user 1000.
FROM python:3.11-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends bubblewrap \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/kata
COPY pyproject.toml README.md LICENSE constraints.txt hatch_build.py ./
COPY grader grader
COPY solutions solutions
COPY questions questions
RUN pip install --no-cache-dir -c constraints.txt '.[cluster]' \
    && useradd --create-home --uid 1000 kata
USER kata
WORKDIR /home/kata
ENTRYPOINT ["kata"]
CMD ["doctor"]
