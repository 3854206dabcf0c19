"""`devices`: the machines that measure."""

from __future__ import annotations

from pathlib import Path

import click

from inn_automl.cli.options import connect, print_json, print_table, server_options


@click.group(invoke_without_command=True)
@server_options
@click.pass_context
def devices(
    context: click.Context, home: Path | None, url: str | None, key: str | None, as_json: bool
) -> None:
    """List the devices that measure, or remove one."""
    context.obj = (home, url, key, as_json)
    if context.invoked_subcommand is not None:
        return
    with connect(home, url, key) as client:
        listed = client.devices()
    if as_json:
        print_json(listed)
        return
    rows = [
        (
            device.name,
            device.state,
            device.description.cpu,
            str(device.description.num_cores),
            ", ".join(f"{name} {version}" for name, version in device.description.runtimes.items()),
            f"{device.last_seen_at.astimezone():%Y-%m-%d %H:%M:%S}",
        )
        for device in listed
    ]
    print_table(("name", "state", "cpu", "cores", "runtimes", "last seen"), rows)


@devices.command()
@click.argument("name")
@server_options
@click.pass_obj
def remove(
    outer: tuple[Path | None, str | None, str | None, bool],
    name: str,
    home: Path | None,
    url: str | None,
    key: str | None,
    as_json: bool,
) -> None:
    """Forget a device; its agent registers again when it is started again."""
    with connect(home or outer[0], url or outer[1], key or outer[2]) as client:
        client.remove_device(name)
    print_json({"removed": name}) if as_json or outer[3] else click.echo(f"{name}: removed")
