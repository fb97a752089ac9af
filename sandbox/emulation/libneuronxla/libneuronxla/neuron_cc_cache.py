# SPDX-License-Identifier: GPL-3.0-or-later
"""Where compiled programs are kept: a folder. Others make caches of their own kinds from these."""

import os
import re
from pathlib import Path
from typing import Optional

_DEFAULT = "/var/tmp/neuron-compile-cache"  # noqa: S108 - AWS's own place


class CacheUrl:
    def __init__(self, cache_path: str, url_type: str = "fs") -> None:
        self.url, self.url_type = cache_path, url_type

    def is_s3(self) -> bool:
        return self.url_type == "s3"

    @staticmethod
    def get_cache_url(cache_dir: Optional[str] = None) -> "CacheUrl":
        """The folder that was asked for, here or with --cache_dir in NEURON_CC_FLAGS or NEURON_COMPILE_CACHE_URL."""
        flag = re.search(r"--cache_dir[= ]\s*(\S+)", os.environ.get("NEURON_CC_FLAGS", ""))
        url = cache_dir or (flag and flag[1]) or os.environ.get("NEURON_COMPILE_CACHE_URL") or _DEFAULT
        return CacheUrl(url, "s3" if url.startswith("s3://") else "fs")


class CompileCache:
    def __init__(self, cache_url: CacheUrl) -> None:
        self.cache_url, self.cache_path = cache_url, cache_url.url


class CompileCacheFs(CompileCache):
    def __init__(self, cache_url: CacheUrl) -> None:
        super().__init__(cache_url)
        Path(self.cache_path).mkdir(parents=True, exist_ok=True)


class CompileCacheS3(CompileCache):
    def __init__(self, cache_url: CacheUrl) -> None:
        raise NotImplementedError("the sandbox's stand-in of libneuronxla keeps nothing in S3")


def create_compile_cache(cache_url: CacheUrl) -> CompileCache:
    return CompileCacheS3(cache_url) if cache_url.is_s3() else CompileCacheFs(cache_url)
