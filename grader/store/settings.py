"""Single values by name: the plan, the folder of the last workspace, open hunts."""

from grader.store.database import Section


class Settings(Section):
    """Texts by key; what they hold is the business of whoever sets them."""

    def get(self, key: str) -> str | None:
        row = self._db.row("SELECT value FROM settings WHERE key = ?", (key,))
        return None if row is None else str(row["value"])

    def set(self, key: str, value: str) -> None:
        with self._db.transaction():
            self._db.insert(
                "INSERT OR REPLACE INTO settings (key, value) VALUES (?, ?)", (key, value)
            )
