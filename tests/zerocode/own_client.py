"""The jobs, with a Sentry client of the application's own."""

import os
import runpy
from pathlib import Path

import sentry_sdk

sentry_sdk.init(dsn=os.environ["APPLICATIONS_DSN"], traces_sample_rate=1.0)
runpy.run_path(str(Path(__file__).with_name("batch.py")))
