"""Install pip into the running interpreter's environment from its wheel, for a Python that comes without ensurepip."""

import hashlib
import json
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from pathlib import Path

INDEX = "https://pypi.org/pypi/pip/json"


def main() -> None:
    """Download the newest wheel of pip, check it, and let it install itself."""
    with urllib.request.urlopen(INDEX, timeout=60) as response:
        files = json.load(response)["urls"]
    wheel = next(item for item in files if item["packagetype"] == "bdist_wheel")
    url = urllib.parse.urljoin(INDEX, wheel["url"])
    with urllib.request.urlopen(url, timeout=60) as response:
        content = response.read()
    if hashlib.sha256(content).hexdigest() != wheel["digests"]["sha256"]:
        sys.exit(f"error: {url} is not what the index says; try again")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / wheel["filename"]
        path.write_bytes(content)
        subprocess.run([sys.executable, f"{path}/pip", "install", "--no-index", str(path)], check=True)


if __name__ == "__main__":
    main()
