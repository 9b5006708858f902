"""Bring products to S3, and write a receipt with the size and the ETag of each."""

import argparse
import json
import sys
from pathlib import Path

from rampflow.files.atomic import replacing
from rampflow.remote.upload import upload
from rampflow.step.logs import step_logger
from rampflow.step.program import reported_errors


def main(argv: list[str] | None = None) -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(prog="upload_products.py", description=__doc__)
    parser.add_argument("receipt", metavar="RECEIPT", type=Path, help="file to write when all are there (.json)")
    parser.add_argument("products", metavar="FILE", type=Path, nargs="+", help="the products")
    parser.add_argument("--to", metavar="ADDRESS", required=True, help="folder on S3")
    arguments = parser.parse_args(argv)
    with reported_errors("upload_products") as outcome:
        known = {}
        for path in arguments.products:
            file = upload(path, f"{arguments.to.rstrip('/')}/{path.name}")
            known[path.name] = [file.size, file.version]
            step_logger("upload_products").info("%s, %d bytes", file.address, file.size)
        with replacing(arguments.receipt) as partial:
            partial.write_text(json.dumps({"to": arguments.to, "files": known}, indent=1) + "\n")
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
