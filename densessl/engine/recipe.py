"""What of a config a checkpoint goes on with, and what has changed in it since."""

from typing import Any

from mmengine.config import Config

from densessl.errors import UserError

# Restored with the checkpoint, whatever the config says now.
RESTORED = ("optimizer", "paramwise_cfg", "auto_scale_lr", "param_scheduler")


def recipe_of(cfg: Config) -> dict[str, Any]:
    """What decides what is learned, as plain values."""
    plain = cfg.to_dict()
    return dict(
        model=plain["model"],
        transform=plain["train_dataloader"]["dataset"].get("transform"),
        optimizer=plain["optim_wrapper"]["optimizer"],
        paramwise_cfg=plain["optim_wrapper"].get("paramwise_cfg"),
        auto_scale_lr=plain.get("auto_scale_lr"),
        param_scheduler=plain.get("param_scheduler"),
    )


def differences(old: dict[str, Any], new: dict[str, Any], filename: str) -> list[str]:
    """What is to be said when training goes on with ``new`` from a checkpoint of ``old``.

    Args:
        old: ``recipe_of`` the config that wrote the checkpoint; parts that it does not say are not
            compared.
        new: ``recipe_of`` the config of now.
        filename: The checkpoint.

    Raises:
        UserError: If a method, loss, optimizer or schedule is another one.
    """
    was = _comparable(old)
    now = _comparable({part: value for part, value in new.items() if part in old})
    changed = [key for key in sorted({*was, *now}) if was.get(key) != now.get(key)]
    said = {key: f"{key} from {was.get(key)!r} to {now.get(key)!r}" for key in changed}
    kinds = [
        said[key]
        for key in changed
        if key.endswith(".type") and (key in was and key in now or key.startswith(RESTORED))
    ]
    if kinds:
        raise UserError(
            f"{filename} was trained with another recipe; this config changes {', '.join(kinds)}.",
            "resume with the config it was trained with (it lies beside the checkpoint), or begin "
            f"a new run in another --work-dir with --cfg-options load_from={filename}",
        )
    kept = [said[key] for key in changed if key.startswith(RESTORED)]
    taken = [said[key] for key in changed if not key.startswith(RESTORED)]
    lines = []
    if kept:
        lines.append(
            f"this config changes {', '.join(kept)}, but optimizer and schedules stay the "
            "checkpoint's: begin a new run with load_from to train with others"
        )
    if taken:
        lines.append(f"this config changes {', '.join(taken)}, from the next step on")
    return lines


def _comparable(recipe: dict[str, Any]) -> dict[str, Any]:
    """Its keys and values, types by their own names: a config may name or hold them in any way."""
    return {
        key: str(value).rpartition(".")[2] if key.endswith(".type") else value
        for key, value in flat(recipe).items()
        if not key.endswith(("._scope_", "._delete_"))
    }


def flat(value: Any, key: str = "") -> dict[str, Any]:
    """Dotted keys and their values."""
    if isinstance(value, list | tuple):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return {key: value}
    found = {}
    for name, each in value.items():
        found |= flat(each, f"{key}.{name}" if key else str(name))
    return found
