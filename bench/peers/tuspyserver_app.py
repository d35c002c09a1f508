"""tuspyserver as its own documentation mounts it; its files go to BENCH_FOLDER."""

import os

from fastapi import FastAPI
from tuspyserver import create_tus_router

app = FastAPI()
app.include_router(create_tus_router(prefix="files", files_dir=os.environ["BENCH_FOLDER"], max_size=1 << 40))
