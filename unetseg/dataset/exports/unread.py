"""Formats that are not read, and the export that is read instead."""

import re
from pathlib import Path

from unetseg.dataset.exports.values import HEAD, files_in, head_of, homes_of, json_files
from unetseg.errors import InputError

_AS_PNG = "save its masks as PNG, with the names of the images"
_OUTLINES = "draw polygons, and export COCO"
_UNREAD = (
    ("*_seg.npy", "Cellpose, which needs pickle", "in Cellpose: File > Save masks as PNG/tif"),
    ("*RoiSet*.zip", "ImageJ regions", "in Fiji: open image and regions, then save a label image"),
    ("*.roi", "ImageJ regions", "in Fiji: open image and regions, then save a label image"),
    ("*.xml", "Pascal VOC boxes", "export segmentation masks"),
    ("*.nii*", "NIfTI volumes", "export each slice as PNG or TIFF"),
    ("*.mat", "MATLAB arrays", "in MATLAB: imwrite(uint8(mask), 'x.png')"),
    ("*.shp", "a shapefile", "in QGIS: Raster > Conversion > Rasterize, on each image's grid"),
    ("*.czi", "Zeiss CZI", "in Fiji or ZEN: save as TIFF"),
    ("*.lif", "Leica LIF", "in Fiji: save as TIFF"),
    ("*.nd2", "Nikon ND2", "in Fiji: save as TIFF"),
    ("*.dcm", "DICOM", "export each picture as PNG or TIFF"),
    ("*.ilp", "an ilastik project", "in ilastik: export the labels as TIFF"),
    ("*.ndjson", "Labelbox", _AS_PNG),
    ("*.npy", "NumPy arrays", "save them as PNG or TIFF"),
    ("*.npz", "NumPy arrays", "save them as PNG or TIFF"),
)
_CVAT = "CVAT for images", "export COCO 1.0 or Segmentation mask 1.1, and tick Save images"
# JSON files by keys that their first object holds, whether alone or in a list.
_UNREAD_JSON = (
    (("item", "annotations", "version"), "V7 Darwin", "in V7: export COCO"),
    (("categories", "items"), "Datumaro", "export COCO"),
    (("data_row", "projects"), "Labelbox", _AS_PNG),
    (("Labeled Data", "Label"), "Labelbox", _AS_PNG),
    (("metadata", "instances"), "SuperAnnotate", "in SuperAnnotate: export COCO"),
    (("label_classes", "images"), "Hasty", "in Hasty: export COCO"),
    (("dataset", "name"), "Segments.ai", "with its SDK: export_dataset to semantic or COCO"),
    (("label_hash", "data_units"), "Encord", "in Encord: export COCO"),
    (("task_id", "response"), "Scale", _AS_PNG),
    (("reference_id", "geometry"), "Scale Nucleus", _AS_PNG),
    (("item", "annotations"), "Scale Nucleus", _AS_PNG),
    (("assets", "name"), "VoTT", "it exports no outlines: draw them in VIA 2, and export JSON"),
    (("imgHeight", "objects"), "Cityscapes polygons", "take its *_labelIds.png as masks"),
    (("file", "metadata", "view"), "VIA 3", "label with VIA 2, and export JSON"),
)
# Tables of boxes by columns that their first line names.
_UNREAD_CSV: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("xmin", "ymin", "xmax", "ymax"), "boxes of VoTT or TensorFlow", _OUTLINES),
    (("bbox_x", "bbox_y"), "boxes of MakeSense", f"in MakeSense: {_OUTLINES}"),
)
# A line of MakeSense's older tables, which do not name their columns.
_BOX_OF_MAKESENSE = re.compile(r"[^,]+(,[\d.]+){4},[^,]+(,\d+){2}\s*")


def refuse_by_name(folder: Path) -> None:
    """Refuse a folder without pairs by the name of the format that it holds.

    Raises:
        InputError: A format that is not read, with the format to export.
    """
    for pattern, kind, remedy in _UNREAD:
        for home in homes_of(folder):
            if found := sorted(f for f in home.glob(pattern) if f.name[:1] != "."):
                if pattern == "*.xml" and _is_cvat(found[0]):
                    kind, remedy = _CVAT
                raise InputError(found[0], f"{kind}: not read", remedy)
    for file, data in json_files(folder):
        first = data[0] if isinstance(data, list) and data else data
        for keys, kind, remedy in _UNREAD_JSON:
            if isinstance(first, dict) and first.keys() >= set(keys):
                raise InputError(file, f"{kind}: not read", remedy)
    for file in (f for home in homes_of(folder) for f in files_in(home, ".csv")):
        first = head_of(file)
        columns = {column.strip(' "').lower() for column in first.split(",")}
        if _BOX_OF_MAKESENSE.fullmatch(first):
            columns = {"bbox_x", "bbox_y"}
        for named, kind, remedy in _UNREAD_CSV:
            if columns >= set(named):
                raise InputError(file, f"{kind}: not read", remedy)


def _is_cvat(path: Path) -> bool:
    """Tell CVAT's list of all images from the file of one image in Pascal VOC."""
    with open(path, "rb") as file:
        return path.name == "annotations.xml" or b"<annotations>" in file.read(HEAD)
