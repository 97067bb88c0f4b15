"""Flags > variables > file > defaults, and errors that name whoever said it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.config import ThothConfig, load_config, load_file, parse_overrides
from cluster.config.load import setting_names
from cluster.errors import InvalidArgument, NotFound


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "thoth.yaml"
    file.write_text(text)
    return file


def test_without_anything_said_the_defaults_hold() -> None:
    assert load_config(None, {}, {}) == ThothConfig()


def test_flags_go_over_variables_over_the_file_over_defaults(tmp_path: Path) -> None:
    file = written(tmp_path, "gateway: {http_port: 1, grpc_port: 1, replicas: 7}\nlog_level: ERROR")
    environ = {"THOTH_GATEWAY__HTTP_PORT": "2", "THOTH_GATEWAY__GRPC_PORT": "2"}
    config = load_config(file, {"gateway.http_port": "3"}, environ)
    assert config.gateway.http_port == 3
    assert config.gateway.grpc_port == 2
    assert config.gateway.replicas == 7
    assert config.log_level == "ERROR"
    assert config.gateway.max_top_k == ThothConfig().gateway.max_top_k


def test_the_args_of_a_serve_file_are_the_settings(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "http_options: {port: 8000}\n"
        "applications:\n"
        "- {name: thoth, import_path: 'actors.launch:build_app', args: {model: {name: mine}}}\n",
    )
    assert load_config(file, {}, {}).model.name == "mine"


def test_two_applications_with_args_are_ambiguous(tmp_path: Path) -> None:
    file = written(tmp_path, "applications: [{args: {}}, {args: {}}]")
    with pytest.raises(InvalidArgument, match="2 of them have args; 1 was expected"):
        load_config(file, {}, {})


@pytest.mark.parametrize("text", ["", "gateway:\n", "{}"])
def test_an_empty_file_or_section_says_nothing(tmp_path: Path, text: str) -> None:
    assert load_file(written(tmp_path, text)) == ThothConfig()


def test_null_unsets_an_optional_setting(tmp_path: Path) -> None:
    file = written(tmp_path, "model: {name: mine}")
    assert load_config(file, {"model.name": "null"}, {}).model.name is None


def test_an_unknown_key_of_the_file_is_refused_with_a_guess(tmp_path: Path) -> None:
    file = written(tmp_path, "gateway: {http_prot: 8001}")
    with pytest.raises(InvalidArgument, match=r"did you mean gateway\.http_port\?") as caught:
        load_config(file, {}, {})
    assert caught.value.message.startswith(f"{file}: gateway.http_prot is not a setting")
    assert caught.value.field == "gateway.http_prot"


def test_an_unknown_variable_is_refused_with_a_guess() -> None:
    with pytest.raises(InvalidArgument, match=r"did you mean THOTH_GATEWAY__HTTP_PORT\?"):
        load_config(None, {}, {"THOTH_GATEWAY_HTTP_PORT": "8001"})


def test_an_unknown_flag_is_refused_with_a_guess() -> None:
    with pytest.raises(InvalidArgument, match=r"did you mean model\.source\?") as caught:
        load_config(None, {"model.sauce": "x"}, {})
    assert "--set model.sauce" in caught.value.message


@pytest.mark.parametrize(
    ("overrides", "environ", "source"),
    [
        ({"gateway.http_port": "99999"}, {}, "--set gateway.http_port"),
        ({}, {"THOTH_GATEWAY__HTTP_PORT": "99999"}, "THOTH_GATEWAY__HTTP_PORT"),
    ],
)
def test_a_bad_value_names_who_said_it_the_value_and_the_rule(
    overrides: dict[str, str], environ: dict[str, str], source: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        load_config(None, overrides, environ)
    error = caught.value
    assert error.message.startswith(f"{source}: gateway.http_port is '99999'")
    assert "65535" in error.limit
    assert error.field == "gateway.http_port"


def test_a_section_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="gateway must be a mapping of settings, not 3"):
        load_file(written(tmp_path, "gateway: 3"))


@pytest.mark.parametrize("text", ["a: [", "\tgateway: 1", "- 1\n- 2"])
def test_a_file_that_is_no_mapping_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(InvalidArgument) as caught:
        load_file(file)
    assert str(file) in caught.value.message
    assert "\n" not in caught.value.message


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such configuration file"):
        load_config(tmp_path / "nope.yaml", {}, {})


def test_yaml_cannot_make_objects(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="not YAML"):
        load_file(written(tmp_path, "home: !!python/object/apply:os.getcwd []"))


def test_the_client_s_variables_and_service_links_are_not_settings() -> None:
    environ = {
        "THOTH_ENDPOINT": "host:1",
        "THOTH_API_KEY": "key",
        "THOTH_SERVICE_HOST": "10.0.0.1",
        "THOTH_SERVICE_PORT_HTTP": "8000",
        "THOTH_PORT": "tcp://10.0.0.1:8000",
        "THOTH_GATEWAY_PORT_8000_TCP_ADDR": "10.0.0.1",
        "HOME": "/root",
    }
    assert load_config(None, {}, environ) == ThothConfig()


def test_a_flag_without_a_value_is_refused() -> None:
    assert parse_overrides(["model.name=a=b"]) == {"model.name": "a=b"}
    with pytest.raises(InvalidArgument, match=r"section\.setting=value"):
        parse_overrides(["gateway.http_port"])


def test_every_setting_is_described() -> None:
    schema = ThothConfig.model_json_schema()
    sections = [schema, *schema["$defs"].values()]
    bare = [
        name
        for section in sections
        for name, field in section["properties"].items()
        if "description" not in field and "$ref" not in field
    ]
    assert bare == []
    assert len(list(setting_names())) > 20


def test_the_cache_keeps_documents_on_device_and_host_unless_told_otherwise() -> None:
    cache = ThothConfig().cache
    assert (cache.tiers, cache.policy) == (("device", "host"), "pgdsf")
    assert (cache.placement, cache.admission) == ("tree", "reused")
    assert cache.shared_collections == ()
    config = ThothConfig(home=Path("/somewhere"))
    assert config.cache_dir == config.home_dir / "cache"


@pytest.mark.parametrize(
    ("said", "tiers"),
    [
        ("device,host,disk", ("device", "host", "disk")),
        ("device, host", ("device", "host")),
        ("", ()),
    ],
)
def test_lists_are_said_with_commas_by_flags_and_variables(
    said: str, tiers: tuple[str, ...]
) -> None:
    assert load_config(overrides={"cache.tiers": said}, environ={}).cache.tiers == tiers
    assert load_config(environ={"THOTH_CACHE__TIERS": said}).cache.tiers == tiers
    shared = load_config(overrides={"cache.shared_collections": "kb,wiki"}, environ={})
    assert shared.cache.shared_collections == ("kb", "wiki")


@pytest.mark.parametrize("name", ["time_limit_s", "memory_bytes"])
def test_no_default_of_the_prover_is_above_its_limit(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=f"{name} is above max_{name}"):
        load_file(written(tmp_path, f"prover: {{max_{name}: 1}}"))


@pytest.mark.parametrize("tiers", [[], ["device"], ["device", "host"], ["device", "host", "disk"]])
def test_tiers_are_the_nearest_ones(tiers: list[str], tmp_path: Path) -> None:
    assert load_file(written(tmp_path, f"cache: {{tiers: {tiers}}}")).cache.tiers == tuple(tiers)


@pytest.mark.parametrize(
    "tiers", [["host"], ["host", "device"], ["device", "disk"], ["device", "device"]]
)
def test_tiers_with_a_gap_or_out_of_order_are_refused(tiers: list[str], tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="device, then host, then disk") as caught:
        load_file(written(tmp_path, f"cache: {{tiers: {tiers}}}"))
    assert caught.value.field == "cache.tiers"


@pytest.mark.parametrize(
    ("setting", "value"),
    [("tiers", "[tape]"), ("policy", "fifo"), ("placement", "anywhere"), ("host_bytes", "0"),
     ("pin_system_tokens", "-1")],
)  # fmt: skip
def test_a_bad_cache_setting_is_refused_by_name(setting: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument) as caught:
        load_file(written(tmp_path, f"cache: {{{setting}: {value}}}"))
    assert caught.value.field is not None
    assert caught.value.field.startswith(f"cache.{setting}")


@pytest.mark.parametrize("name", ["deploy/serve.yaml", "deploy/presets/cpu.yaml"])
def test_shipped_files_show_every_setting_of_the_cache_at_its_default(name: str) -> None:
    file = Path(__file__).parents[2] / name
    cache = load_file(file).cache
    assert cache == ThothConfig().cache
    assert cache.model_fields_set == set(type(cache).model_fields)
