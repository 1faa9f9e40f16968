"""The shipped metadata definitions: every file has the shape that `glance-manage db load_metadefs` reads."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import jsonschema_rs
import pytest

SEEDS = {file.name: file for file in resources.files("glimpse").joinpath("metadef_seeds").iterdir()}

IMAGE = "OS::Glance::Image"
VOLUME = "OS::Cinder::Volume"
FLAVOR = "OS::Nova::Flavor"
AGGREGATE = "OS::Nova::Aggregate"
SERVER = "OS::Nova::Server"


def on(name: str, prefix: str | None = None, target: str | None = None) -> dict[str, str]:
    """One resource type as the files write it."""
    association = {"name": name, "prefix": prefix, "properties_target": target}
    return {key: value for key, value in association.items() if value is not None}


HARDWARE = [on(IMAGE, "hw_"), on(FLAVOR, "hw:"), on(VOLUME, "hw_", "image")]
SOFTWARE = [on(IMAGE), on(VOLUME, target="image"), on(SERVER, target="metadata")]

# file: namespace, resource types, properties, objects, tags. Operators know Glance's files by these.
SHIPPED: dict[str, tuple[str, list[dict[str, str]], int, int, int]] = {
    "cim-processor-allocation-setting-data.json": (
        "CIM::ProcessorAllocationSettingData",
        [
            on(VOLUME, "CIM_PASD_", "image"),
            on(IMAGE, "CIM_PASD_"),
            on(AGGREGATE, "CIM_PASD_"),
            on(FLAVOR, "CIM_PASD_"),
            on(SERVER, target="scheduler_hints"),
        ],
        3,
        0,
        0,
    ),
    "cim-resource-allocation-setting-data.json": (
        "CIM::ResourceAllocationSettingData",
        [on(VOLUME, "CIM_RASD_", "image"), on(AGGREGATE, "CIM_RASD_"), on(FLAVOR, "CIM_RASD_")],
        19,
        0,
        0,
    ),
    "cim-storage-allocation-setting-data.json": (
        "CIM::StorageAllocationSettingData",
        [on(VOLUME, "CIM_SASD_"), on(AGGREGATE, "CIM_SASD_"), on(FLAVOR, "CIM_SASD_")],
        13,
        0,
        0,
    ),
    "cim-virtual-system-setting-data.json": (
        "CIM::VirtualSystemSettingData",
        [on(AGGREGATE, "CIM_VSSD_"), on(FLAVOR, "CIM_VSSD_")],
        17,
        0,
        0,
    ),
    "compute-aggr-disk-filter.json": ("OS::Compute::AggregateDiskFilter", [on(AGGREGATE)], 1, 0, 0),
    "compute-aggr-iops-filter.json": ("OS::Compute::AggregateIoOpsFilter", [on(AGGREGATE)], 1, 0, 0),
    "compute-aggr-num-instances.json": ("OS::Compute::AggregateNumInstancesFilter", [on(AGGREGATE)], 1, 0, 0),
    "compute-cpu-mode.json": ("OS::Compute::CPUMode", [on(IMAGE, "hw_"), on(FLAVOR, "hw:")], 1, 0, 0),
    "compute-cpu-pinning.json": ("OS::Compute::CPUPinning", HARDWARE, 2, 0, 0),
    "compute-guest-memory-backing.json": ("OS::Compute::GuestMemoryBacking", HARDWARE, 1, 0, 0),
    "compute-guest-shutdown.json": ("OS::Compute::GuestShutdownBehavior", [on(IMAGE)], 1, 0, 0),
    "compute-host-capabilities.json": (
        "OS::Compute::HostCapabilities",
        [on(FLAVOR, "capabilities:"), on(AGGREGATE, "aggregate_instance_extra_specs:")],
        7,
        0,
        0,
    ),
    "compute-hypervisor.json": ("OS::Compute::Hypervisor", [on(IMAGE)], 2, 0, 0),
    "compute-instance-data.json": ("OS::Compute::InstanceData", [on(IMAGE), on(VOLUME, target="image")], 2, 0, 0),
    "compute-libvirt-image.json": ("OS::Compute::LibvirtImage", [on(IMAGE)], 17, 0, 0),
    "compute-libvirt.json": ("OS::Compute::Libvirt", [on(IMAGE, "hw_"), on(FLAVOR, "hw:")], 5, 0, 0),
    "compute-quota.json": ("OS::Compute::Quota", [on(FLAVOR)], 0, 3, 0),
    "compute-randomgen.json": ("OS::Compute::RandomNumberGenerator", [on(FLAVOR)], 3, 0, 0),
    "compute-vcputopology.json": ("OS::Compute::VirtCPUTopology", HARDWARE, 6, 0, 0),
    "compute-vmware-flavor.json": ("OS::Compute::VMwareFlavor", [on(FLAVOR)], 2, 0, 0),
    "compute-vmware-quota-flavor.json": ("OS::Compute::VMwareQuotaFlavor", [on(FLAVOR)], 2, 0, 0),
    "compute-vmware.json": ("OS::Compute::VMware", [on(IMAGE)], 6, 0, 0),
    "compute-vtpm-hw.json": ("OS::Compute::TPM", [on(FLAVOR, "hw:"), on(IMAGE, "hw_")], 2, 0, 0),
    "compute-vtpm.json": ("OS::Compute::VTPM", [on(FLAVOR, "traits:"), on(IMAGE, "traits:")], 2, 0, 0),
    "compute-watchdog.json": ("OS::Compute::Watchdog", HARDWARE, 1, 0, 0),
    "compute-xenapi.json": ("OS::Compute::XenAPI", [on(IMAGE)], 1, 0, 0),
    "glance-common-image-props.json": ("OS::Glance::CommonImageProperties", [], 10, 0, 0),
    "image-signature-verification.json": ("OS::Glance::Signatures", [on(IMAGE)], 4, 0, 0),
    "operating-system.json": ("OS::OperatingSystem", [on(IMAGE), on(VOLUME, target="image")], 3, 0, 0),
    "software-databases.json": ("OS::Software::DBMS", [*SOFTWARE, on("OS::Trove::Instance")], 0, 12, 0),
    "software-runtimes.json": ("OS::Software::Runtimes", SOFTWARE, 0, 5, 0),
    "software-webservers.json": ("OS::Software::WebServers", SOFTWARE, 0, 3, 0),
    "storage-volume-type.json": ("OS::Cinder::Volumetype", [on(IMAGE, "cinder_")], 1, 0, 0),
}

NAME = {"type": "string", "minLength": 1, "maxLength": 80}
TEXT = {"type": "string", "minLength": 1, "maxLength": 500}
STRINGS = {"type": "array", "items": {"type": "string"}, "minItems": 1}
KINDS = {"enum": ["string", "integer", "number", "boolean", "array"]}
PROPERTY = {
    "type": "object",
    "properties": {
        "title": NAME,
        "description": TEXT,
        "type": KINDS,
        "items": {
            "type": "object",
            "properties": {"type": KINDS, "enum": STRINGS},
            "required": ["type"],
            "additionalProperties": False,
        },
        "operators": {"type": "array", "items": {"enum": ["<or>", "<all-in>"]}, "minItems": 1},
        "enum": STRINGS,
        "default": {"type": ["string", "integer"]},
        "minimum": {"type": "integer"},
        "maximum": {"type": "integer"},
        "pattern": {"type": "string", "format": "regex"},
        "readonly": {"type": "boolean"},
    },
    "required": ["title", "description", "type"],
    "additionalProperties": False,
}
PROPERTIES = {"type": "object", "propertyNames": NAME, "additionalProperties": PROPERTY, "minProperties": 1}
FILE = {
    "type": "object",
    "properties": {
        "namespace": NAME,
        "display_name": NAME,
        "description": TEXT,
        "visibility": {"const": "public"},
        "protected": {"type": "boolean"},
        "resource_type_associations": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"name": NAME, "prefix": NAME, "properties_target": NAME},
                "required": ["name"],
                "additionalProperties": False,
            },
        },
        "properties": PROPERTIES,
        "objects": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"name": NAME, "description": TEXT, "properties": PROPERTIES},
                "required": ["name", "description", "properties"],
                "additionalProperties": False,
            },
        },
    },
    "required": ["namespace", "display_name", "description", "resource_type_associations"],
    "additionalProperties": False,
}


def read(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(SEEDS[name].read_text(encoding="utf-8"))
    return document


def test_files_are_those_of_glance() -> None:
    assert sorted(SEEDS) == sorted(SHIPPED)


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_file_has_the_shape_that_is_loaded(name: str) -> None:
    jsonschema_rs.validator_for(FILE, validate_formats=True).validate(read(name))


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_file_holds_what_operators_know(name: str) -> None:
    namespace, resource_types, properties, objects, tags = SHIPPED[name]
    document = read(name)

    def by_name(association: dict[str, str]) -> str:
        return association["name"]

    assert document["namespace"] == namespace
    assert sorted(document["resource_type_associations"], key=by_name) == sorted(resource_types, key=by_name)
    assert len(document.get("properties", {})) == properties
    assert len({entry["name"] for entry in document.get("objects", [])}) == objects
    assert len(document.get("tags", [])) == tags


def test_bounds_lie_around_their_default() -> None:
    for name in SHIPPED:
        document = read(name)
        parts = [document, *document.get("objects", [])]
        for title, property_ in ((key, value) for part in parts for key, value in part.get("properties", {}).items()):
            low, default, high = (property_.get(key) for key in ("minimum", "default", "maximum"))
            if default is not None:
                assert low is None or low <= default, (name, title)
                assert high is None or default <= high, (name, title)
