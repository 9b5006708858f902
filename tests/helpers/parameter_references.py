"""References with parameters of the steps, and a CRDS context that has some."""

from pathlib import Path

import asdf
from simulator.simulate_references import USEAFTER, read_mapping, write_mapping


def write_reference(path, values, steps=()):
    """A reference in the format of stpipe's StepConfig; `steps` are pairs of a name and values."""
    nested = [{"class": f"romancal.{name}.Step", "name": name, "parameters": given} for name, given in steps]
    tree = {"class": "romancal.Step", "name": "Step", "parameters": values, "meta": {"author": "test"}}
    asdf.AsdfFile(tree | ({"steps": nested} if nested else {})).write_to(path)
    return path


def add_parameters(cache, serial, **references):
    """Add a context to a cache, with references of parameters for some exposure types: `(types, values, steps)` by type."""
    import crds

    mappings, files = cache / "mappings/roman", cache / "references/roman/wfi"
    rmaps = read_mapping(sorted(mappings.glob("*.imap"))[-1])[1]
    for name, (types, *content) in references.items():
        reftype = name.replace("_", "-")
        header = read_mapping(Path(crds.__file__).parent / f"roman/specs/wfi_{reftype}.rmap")[0] | {"derived_from": "test"}
        file = f"roman_wfi_{reftype}_{serial}.asdf"
        write_reference(files / file, *content)
        rmaps[reftype] = f"roman_wfi_{reftype}_{serial}.rmap"
        key = (types,) if header["parkey"][0] else ()
        write_mapping(mappings / rmaps[reftype], header, {key: {USEAFTER: file}}, rules=True)
    common = {"observatory": "ROMAN", "description": "test", "derived_from": "test"}
    imap = f"roman_wfi_{serial}.imap"
    write_mapping(mappings / imap, common | {"mapping": "INSTRUMENT", "instrument": "WFI", "parkey": ("REFTYPE",)}, rmaps)
    pipeline = common | {"mapping": "PIPELINE", "parkey": ("ROMAN.META.INSTRUMENT.NAME",)}
    write_mapping(mappings / f"roman_{serial}.pmap", pipeline, {"WFI": imap})


def add_example(cache):
    """Add a context, roman_0005.pmap, that sets parameters of ramp_fitting and leaves out flatfield for one exposure type."""
    add_parameters(
        cache,
        "0005",
        pars_rampfitstep=("", {"rejection_threshold": 5.0, "edge_size": 3, "color": "red"}),
        pars_flatfieldstep=("WFI_WFSC", {"skip": True}),
        pars_exposurepipeline=("WFI_IMAGE|WFI_WFSC", {}, [("rampfit", {"edge_size": 4})]),
    )
    return cache
