"""Settings of verify (torch-free): those of measuring."""

from vitcompress.stages.judging.config import VerifyConfig as VerifyConfig
