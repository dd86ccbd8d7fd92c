"""What differs between two locks, as resolved builds have them: one `package==version --hash=sha256:…` a line."""


def pins_of(lock: str) -> dict[str, str]:
    """Package → version and digest."""
    return dict(line.split("==", 1) for line in lock.splitlines() if "==" in line)


def changed_pins(before: str, after: str) -> list[str]:
    """One line for each package that was added, removed, or is another one now."""
    old, new = pins_of(before), pins_of(after)
    return [
        f"{name} {_version(old.get(name))} → {_version(new.get(name))}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _version(pin: str | None) -> str:
    if pin is None:
        return "none"
    version, _, digest = pin.partition(" --hash=sha256:")
    return f"{version} ({digest[:7]})" if digest else version
