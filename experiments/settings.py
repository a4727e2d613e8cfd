"""A folder whose outputs are kept for the next start belongs to one set of settings."""

import json
from pathlib import Path
from typing import Any


def belongs(folder: Path, **settings: Any) -> None:
    """Writes FOLDER/settings.json, or SystemExit where it stands there with other settings: what
    is kept would pass for theirs."""
    path = folder / "settings.json"
    now = json.loads(json.dumps(settings, default=str))
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        differs = [name for name in now if before.get(name) != now[name]]
        if differs:
            name = differs[0]
            raise SystemExit(
                f"{folder} holds outputs of another {name.replace('_', '-')}: {before.get(name)!r} "
                f"there, {now[name]!r} here. Use another --work"
            )
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")
