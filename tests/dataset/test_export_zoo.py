"""Exports of annotation tools, built by hand from the tools' own descriptions of their formats."""

import base64
import csv
import io
import itertools
import json
import re
import unicodedata
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageDraw

from unetseg.cli.app import main
from unetseg.dataset import pairing
from unetseg.dataset.conversion.copying import convert_folder
from unetseg.dataset.cutting import build_store
from unetseg.dataset.findings.inspection import inspect_folder
from unetseg.errors import InputError, UnetsegWarning, as_argument, worded
from unetseg.pictures import masks
from unetseg.settings import PatchSettings

COUNT, H, W = 4, 40, 48
BOX = (10, 8, 30, 28)  # x0, y0, x1, y1 of a cell, the last ones outside
OTHER = (32, 4, 44, 14)
NAMES = ("background", "cell", "debris")


def truth(k=0):
    """Return (40, 48): 0 background, 1 a cell, 2 debris; moved down by k."""
    mask = np.zeros((H, W), np.uint8)
    for index, (x0, y0, x1, y1) in enumerate((BOX, OTHER), 1):
        mask[y0 + k : y1 + k, x0:x1] = index
    return mask


def moved(box, k):
    x0, y0, x1, y1 = box
    return x0, y0 + k, x1, y1 + k


def corners(box, k):
    x0, y0, x1, y1 = moved(box, k)
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


def inner(box, k):
    """Return corners for tools that count pixels, the last one included."""
    x0, y0, x1, y1 = moved(box, k)
    return [[x0, y0], [x1 - 1, y0], [x1 - 1, y1 - 1], [x0, y1 - 1]]


def picture(path, k, kind=np.uint8):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(k).integers(0, 9, (H, W))
    Image.fromarray((truth(k) * 90 + noise).astype(kind)).save(path)


def pictures(root, folder="images", name="im{}.png"):
    for k in range(COUNT):
        picture(root / folder / name.format(k), k)


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data if isinstance(data, str) else json.dumps(data))


def labelled():
    """Yield the image's number, the class and its box."""
    for k in range(COUNT):
        yield k, "cell", BOX
        yield k, "debris", OTHER


def part(box, k):
    mask = np.zeros((H, W), np.uint8)
    x0, y0, x1, y1 = moved(box, k)
    mask[y0:y1, x0:x1] = 1
    return mask


def lengths(mask):
    """Return runs down the columns by COCO's definition, pixel by pixel."""
    counts, last = [0], 0
    for value in mask.T.ravel().tolist():
        if value != last:
            counts.append(0)
            last = value
        counts[-1] += 1
    return counts


def packed(counts):
    """Return runs as COCO's text, after ``rleToString`` in maskApi.c."""
    text = ""
    for i, count in enumerate(counts):
        x = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            c = x & 31
            x >>= 5
            more = x != -1 if c & 16 else x != 0
            text += chr((c | 32 if more else c) + 48)
    return text


# --- exports that are read -------------------------------------------------------------------


def coco(segmentation, file="annotations.json", images="images", name="im{}.png", ids=(1, 2)):
    def build(root):
        pictures(root, images, name)
        write(
            root / file,
            {
                "images": [
                    {"id": k + 7, "file_name": name.format(k), "height": H, "width": W}
                    for k in range(COUNT)
                ],
                "categories": [{"id": ids[0], "name": "cell"}, {"id": ids[1], "name": "debris"}],
                "annotations": [
                    {
                        "id": n,
                        "image_id": k + 7,
                        "category_id": ids[label == "debris"],
                        "segmentation": segmentation(box, k),
                    }
                    for n, (k, label, box) in enumerate(labelled())
                ],
            },
        )

    return build


def polygon(box, k):
    return [[c for p in corners(box, k) for c in p]]


def raw_runs(box, k):
    return {"size": [H, W], "counts": lengths(part(box, k))}


def packed_runs(box, k):
    return {"size": [H, W], "counts": packed(lengths(part(box, k)))}


def yolo(yaml, where="data.yaml", images="images", labels="labels"):
    def build(root):
        pictures(root, images)
        write(root / where, yaml)
        for k in range(COUNT):
            lines = [
                f"{i} " + " ".join(f"{x / W:.8f} {y / H:.8f}" for x, y in corners(box, k))
                for i, box in enumerate((BOX, OTHER))
            ]
            write(root / labels / f"im{k}.txt", "\n".join(lines) + "\n")

    return build


def via_regions(k, as_table=False, checkbox=False):
    regions = []
    for label, box in (("cell", BOX), ("debris", OTHER)):
        points = corners(box, k)
        shape = {
            "name": "polygon",
            "all_points_x": [p[0] for p in points],
            "all_points_y": [p[1] for p in points],
        }
        kind = {label: True} if checkbox else label
        regions.append({"shape_attributes": shape, "region_attributes": {"kind": kind}})
    return dict(enumerate(regions)) if as_table else regions


def via(project=False, **how):
    def build(root):
        pictures(root)
        entries = {
            f"im{k}.png123": {
                "filename": f"im{k}.png",
                "size": (root / f"images/im{k}.png").stat().st_size,
                "regions": via_regions(k, **how),
                "file_attributes": {},
            }
            for k in range(COUNT)
        }
        data = {"_via_settings": {}, "_via_img_metadata": entries} if project else entries
        write(root / "via.json", data)

    return build


def via_rectangles(root):
    via()(root)
    data = json.loads((root / "via.json").read_text())
    for k in range(COUNT):
        for region, box in zip(data[f"im{k}.png123"]["regions"], (BOX, OTHER), strict=True):
            x0, y0, x1, y1 = moved(box, k)
            region["shape_attributes"] = {
                **{"name": "rect", "x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0}
            }
    write(root / "via.json", data)


def via_csv(root):
    pictures(root)
    out = io.StringIO()
    names = ("filename", "region_shape_attributes", "region_attributes")
    table = csv.DictWriter(out, names)
    table.writeheader()
    for k in range(COUNT):
        for r in via_regions(k):
            shape, kind = r["shape_attributes"], r["region_attributes"]
            row = (f"im{k}.png", json.dumps(shape), json.dumps(kind))
            table.writerow(dict(zip(names, row, strict=True)))
    write(root / "via.csv", out.getvalue())


def png_bytes(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def supervisely_object(label, box, k, bitmap):
    if not bitmap:
        shape = {"points": {"exterior": inner(box, k), "interior": []}}
        return {"classTitle": label, "geometryType": "polygon", **shape}
    x0, y0, x1, y1 = moved(box, k)
    data = base64.b64encode(
        zlib.compress(png_bytes(np.full((y1 - y0, x1 - x0), 255, np.uint8)))
    ).decode()
    shape = {"bitmap": {"data": data, "origin": [x0, y0]}}
    return {"classTitle": label, "geometryType": "bitmap", **shape}


def supervisely(bitmap, dataset=""):
    def build(root):
        home = root / dataset
        pictures(home, "img")
        classes = [{"title": "cell", "color": "#FF0000"}, {"title": "debris", "color": "#00FF00"}]
        write(root / "meta.json", {"classes": classes})
        for k in range(COUNT):
            boxes = (("cell", BOX), ("debris", OTHER))
            objects = [supervisely_object(name, box, k, bitmap) for name, box in boxes]
            write(
                home / "ann" / f"im{k}.png.json",
                {"size": {"height": H, "width": W}, "objects": objects},
            )

    return build


def brush_code(mask):
    """Return a code of Label Studio without any repetition: each sample as a literal."""
    rgba = np.zeros((H, W, 4), np.uint8)
    rgba[..., 3] = mask * 255
    samples = rgba.ravel().tolist()
    bits = f"{len(samples):032b}" + f"{7:05b}" + "".join(f"{n - 1:04b}" for n in (3, 4, 8, 16))
    for start in range(0, len(samples), 8):
        block = samples[start : start + 8]
        if len(set(block)) == 1:
            bits += "1" + "00" + f"{len(block) - 1:03b}" + f"{block[0]:08b}"
        else:
            bits += "0" + "01" + f"{len(block) - 1:04b}" + "".join(f"{v:08b}" for v in block)
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def label_studio(kind, prefix=""):
    def region(label, box, k):
        x0, y0, x1, y1 = moved(box, k)
        value = {
            "polygonlabels": {"points": [[x / W * 100, y / H * 100] for x, y in corners(box, k)]},
            "rectanglelabels": {
                "x": x0 / W * 100,
                "y": y0 / H * 100,
                "width": (x1 - x0) / W * 100,
                "height": (y1 - y0) / H * 100,
                "rotation": 0,
            },
            "brushlabels": {"format": "rle", "rle": brush_code(part(box, k))},
        }[kind]
        size = {"original_width": W, "original_height": H}
        return {"type": kind, "value": {**value, kind: [label]}, **size}

    def build(root):
        pictures(root)
        tasks = [
            {
                "id": k + 40,
                "data": {"image": f"/data/upload/1/{prefix}im{k}.png"},
                "annotations": [
                    {"result": [region("cell", BOX, k), region("debris", OTHER, k)]},
                ],
            }
            for k in range(COUNT)
        ]
        write(root / "project-1.json", tasks)

    return build


def qupath(as_list=False, folder="", kind="Polygon"):
    def feature(label, box, k):
        ring = [*corners(box, k), corners(box, k)[0]]
        places = [ring] if kind == "Polygon" else [[ring]]
        return {
            "type": "Feature",
            "geometry": {"type": kind, "coordinates": places},
            "properties": {"objectType": "annotation", "classification": {"name": label}},
        }

    def build(root):
        pictures(root)
        for k in range(COUNT):
            found = [feature("cell", BOX, k), feature("debris", OTHER, k)]
            data = found if as_list else {"type": "FeatureCollection", "features": found}
            write(root / folder / f"im{k}.geojson", data)

    return build


def nnunet(labels):
    def build(root):
        pictures(root, "imagesTr", "case_{}_0000.png")
        (root / "labelsTr").mkdir()
        for k in range(COUNT):
            Image.fromarray(truth(k)).save(root / f"labelsTr/case_{k}.png")
        data = {"channel_names": {"0": "grey"}, "labels": labels, "file_ending": ".png"}
        write(root / "dataset.json", data)

    return build


def roboflow_masks(root):
    pictures(root, ".")
    for k in range(COUNT):
        Image.fromarray(truth(k)).save(root / f"im{k}_mask.png")
    write(root / "_classes.csv", "Pixel Value, Class\n0, background\n1, cell\n2, debris\n")


def cvat(images="JPEGImages", masks_folder="SegmentationClass"):
    def build(root):
        pictures(root, images)
        (root / masks_folder).mkdir()
        colours = np.array([(0, 0, 0), (250, 50, 83), (52, 209, 183)], np.uint8)
        for k in range(COUNT):
            Image.fromarray(colours[truth(k)]).save(root / masks_folder / f"im{k}.png")
        text = "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncell:250,50,83::\n"
        write(root / "labelmap.txt", text + "debris:52,209,183::\n")

    return build


def labelme(beside=True, kind="polygon", others=()):
    def build(root):
        pictures(root, "." if beside else "images")
        for k in range(COUNT):
            found = []
            for label, box in (("cell", BOX), ("debris", OTHER)):
                points = inner(box, k)
                points = [points[0], points[2]] if kind == "rectangle" else points
                found.append({"label": label, "points": points, "shape_type": kind})
            found += [
                {"label": label, "points": [[1, 1], [9, 30], [40, 2]][:count], "shape_type": other}
                for label, other, count in others
            ]
            home = root if beside else root / "json"
            write(home / f"im{k}.json", {"imagePath": f"im{k}.png", "shapes": found})

    return build


def renamed(build, name, pattern="im*.png"):
    """Return a build whose files, found by a pattern, are renamed by a function of their names."""

    def changed(root):
        build(root)
        for file in sorted(root.rglob(pattern)):
            file.rename(file.with_name(name(file.name)))

    return changed


def naming_images(build, file, key, name):
    """Return a build whose label files name images by a function of the images' names."""

    def changed(root):
        build(root)
        for path in root.rglob(file):
            text = re.sub(rf'"{key}": "(?:[^"]*/)?(im\d.png)"', r'"KEY": "\1"', path.read_text())
            text = re.sub('"KEY": "(.*?)"', lambda m: f'"{key}": {json.dumps(name(m[1]))}', text)
            path.write_text(text, "utf-8")

    return changed


def with_apple_doubles(build):
    """Return a build beside whose files lie those that macOS leaves on other disks."""

    def changed(root):
        build(root)
        for file in [f for f in root.rglob("*") if f.is_file()]:
            file.with_name(f"._{file.name}").write_bytes(b"\0\5\x16\7\0\2\xff")
        write(root / "__MACOSX/._im0.json", "no json")

    return changed


def in_sub_folders(root):
    coco(polygon)(root)
    for k in range(COUNT):
        (root / f"images/day {k}").mkdir()
        (root / f"images/im{k}.png").rename(root / f"images/day {k}/im{k}.png")


def coco_oddities(root):
    """Crowds as run lengths, parts without an area, and categories of one name or without use."""
    coco(polygon)(root)
    data = json.loads((root / "annotations.json").read_text())
    data["categories"] = [
        {"id": 1, "name": "cell", "supercategory": "cell"},
        {"id": 2, "name": "debris", "supercategory": "things"},
        {"id": 3, "name": "cell", "supercategory": "things"},
        {"id": 4, "name": "things", "supercategory": "none"},
    ]
    for one in data["annotations"]:
        k = one["image_id"] - 7
        if one["category_id"] == 1 and k % 2:
            one |= {"category_id": 3, "iscrowd": 1, "segmentation": raw_runs(BOX, k)}
        elif one["category_id"] == 2:
            one["segmentation"] += [[], [1, 1, 9, 9]]
    write(root / "annotations.json", data)


def labelme_masks(root):
    labelme()(root)
    for file in root.glob("*.json"):
        data = json.loads(file.read_text())
        for shape in data["shapes"]:
            (x0, y0), _, (x1, y1), _ = shape["points"]
            stamp = png_bytes(np.full((y1 - y0 + 1, x1 - x0 + 1), True))
            mask = base64.b64encode(stamp).decode()
            shape |= {"shape_type": "mask", "points": [[x0, y0], [x1, y1]], "mask": mask}
        write(file, data)


def yolo_of_numbers(*numbers):
    """Return a change of YOLO's texts, in which the classes then have these numbers."""

    def change(build):
        def changed(root):
            build(root)
            for file in (root / "labels").glob("im*.txt"):
                lines = file.read_text().splitlines()
                places = [line.split(" ", 1)[1] for line in lines]
                write(file, "".join(f"{n} {p}\n" for n, p in zip(numbers, places, strict=True)))

        return changed

    return change


def as_ome(build):
    """Return a build whose images are OME-TIFFs."""

    def changed(root):
        build(root)
        for file in (root / "images").glob("*.png"):
            tifffile.imwrite(file.with_suffix(".ome.tif"), np.asarray(Image.open(file)))
            file.unlink()

    return changed


COMPOSED, SEPARATE = "Präparat ", unicodedata.normalize("NFD", "Präparat ")
READ = {
    "COCO, suffix in capitals": renamed(coco(polygon), lambda n: n.replace("png", "PNG"), "*.png"),
    "COCO, labels in capitals": renamed(coco(polygon), str.upper, "*.json"),
    "COCO, names in capitals": naming_images(coco(polygon), "*.json", "file_name", str.upper),
    "COCO, paths of Windows": naming_images(
        coco(polygon), "*.json", "file_name", "C:\\Users\\Jörg\\{}".format
    ),
    "COCO, accents of macOS": renamed(
        naming_images(coco(polygon), "*.json", "file_name", lambda n: COMPOSED + n),
        lambda n: SEPARATE + n,
    ),
    "COCO, files of macOS": with_apple_doubles(coco(polygon)),
    "COCO, images in folders": in_sub_folders,
    "COCO, oddities": coco_oddities,
    "Supervisely, accents of macOS": renamed(
        renamed(supervisely(True), lambda n: SEPARATE + n), lambda n: COMPOSED + n, "im*.json"
    ),
    "YOLO, texts beside images": yolo("names: [cell, debris]", images=".", labels="."),
    "YOLO, texts beside images and a list": yolo("cell\ndebris\n", "classes.txt", ".", "."),
    "YOLO, labels in capitals": renamed(
        yolo("names: [cell, debris]"), lambda n: n.replace("txt", "TXT"), "*.txt"
    ),
    "YOLO, files of macOS": with_apple_doubles(yolo("names: [cell, debris]")),
    "QuPath, labels in capitals": renamed(
        qupath(), lambda n: n.replace("geojson", "GeoJSON"), "*.geojson"
    ),
    "QuPath, files of macOS": with_apple_doubles(qupath()),
    "Supervisely, files of macOS": with_apple_doubles(supervisely(True)),
    "LabelMe, paths of Windows": naming_images(
        labelme(beside=False), "*.json", "imagePath", "..\\images\\{}".format
    ),
    "LabelMe, files of macOS": with_apple_doubles(labelme()),
    "LabelMe masks": labelme_masks,
    "Label Studio, signed addresses": naming_images(
        label_studio("polygonlabels"), "*.json", "image", "https://a.b/c/{}?X-Key=d%2Fe".format
    ),
    "VIA, project and export": lambda root: (
        via()(root),
        (root / "via.json").rename(root / "via_export.json"),
        via(project=True)(root),
    ),
    "Label Studio, local files": renamed(
        naming_images(
            label_studio("polygonlabels"),
            "*.json",
            "image",
            "/data/local-files/?d=my%20set%5Ca%20b%20{}".format,
        ),
        lambda n: f"a b {n}",
    ),
    "COCO polygons": coco(polygon),
    "COCO run lengths": coco(raw_runs),
    "COCO compressed run lengths": coco(packed_runs),
    "COCO in CVAT's layout": coco(polygon, "annotations/instances_default.json"),
    "COCO in CVAT's layout of parts": coco(
        polygon, "annotations/instances_default.json", "images/default"
    ),
    "COCO of Roboflow": coco(polygon, "_annotations.coco.json", "."),
    "COCO, images and labels in one folder": coco(packed_runs, "images/labels.json"),
    "COCO with other numbers": coco(polygon, ids=(3, 90)),
    "COCO in folders of names": coco(polygon, name="a/im{}.png"),
    "YOLO, list": yolo("nc: 2\nnames: ['cell', 'debris']\n"),
    "YOLO, list without quotes": yolo("names: [cell, debris]  # two\n"),
    "YOLO, block list": yolo("names:\n- cell\n- debris\nnc: 2\n"),
    "YOLO, indented block list": yolo("names:\n  - cell\n  - 'debris'\n"),
    "YOLO, table": yolo("path: .\nnames:\n  0: cell\n  1: debris\n"),
    "YOLO, flow table": yolo("names: {0: cell, 1: debris}\n"),
    "YOLO, table in another order": yolo("names: {1: debris, 0: cell}\n"),
    "YOLO, table over lines in another order": yolo("names:\n  1: debris\n  0: 'cell'\n"),
    "YOLO, table with a gap": yolo_of_numbers(2, 7)(yolo("names: {7: debris, 2: cell}\n")),
    "YOLO, list with an empty line": yolo_of_numbers(0, 2)(yolo("cell\n\ndebris\n", "classes.txt")),
    "YOLO, two lists that agree": lambda root: (
        yolo("names: [cell, debris]")(root),
        write(root / "labels/classes.txt", "cell\ndebris\n"),
    ),
    "YOLO, list over lines": yolo("names: [\n  cell,\n  debris]\n"),
    "YOLO, classes.txt": yolo("cell\ndebris\n", "classes.txt"),
    "YOLO, classes.txt of labels": yolo("cell\ndebris\n", "labels/classes.txt"),
    "VIA": via(),
    "VIA project": via(project=True),
    "VIA 1, regions in a table": via(as_table=True),
    "VIA, checkbox": via(checkbox=True),
    "VIA rectangles": via_rectangles,
    "VIA CSV": via_csv,
    "Supervisely bitmaps": supervisely(True),
    "Supervisely polygons": supervisely(False),
    "Supervisely project": supervisely(True, "ds0"),
    "Label Studio polygons": label_studio("polygonlabels"),
    "Label Studio rectangles": label_studio("rectanglelabels"),
    "Label Studio brushes": label_studio("brushlabels"),
    "Label Studio uploads": label_studio("polygonlabels", "3f2a91c0-"),
    "Label Studio, a column with the name of the file": lambda root: with_text(
        label_studio("polygonlabels", "3f2a91c0-"),
        "project-1.json",
        lambda t: re.sub(r'("image": "[^"]*(im\d.png)")', r'"file": "\2", \1', t),
    )(root),
    "QuPath": qupath(),
    "QuPath list": qupath(as_list=True),
    "QuPath in a folder": qupath(folder="geojson"),
    "QuPath, OME-TIFF": as_ome(qupath()),
    "QuPath, OME-TIFF in the names of labels": renamed(
        as_ome(qupath()), lambda n: n.replace(".geojson", ".ome.geojson"), "*.geojson"
    ),
    "QuPath, several parts": qupath(kind="MultiPolygon"),
    "nnU-Net 2": nnunet({"background": 0, "cell": 1, "debris": 2}),
    "nnU-Net 1": nnunet({"0": "background", "1": "cell", "2": "debris"}),
    "Roboflow masks": roboflow_masks,
    "CVAT masks": cvat(),
    "CVAT masks, renamed": cvat("images", "masks"),
    "LabelMe": labelme(),
    "LabelMe, two folders": labelme(beside=False),
    "LabelMe rectangles": labelme(kind="rectangle"),
    "LabelMe, lines and points beside": labelme(
        others=[("crack", "linestrip", 3), ("cell", "point", 1), ("crack", "line", 2)]
    ),
}


@pytest.mark.parametrize("name", READ)
def test_an_export_is_read_alike_by_check_patch_and_convert(tmp_path, name):
    root = tmp_path / "set"
    READ[name](root)
    found = inspect_folder(root)
    assert found.errors == ()
    assert found.table.names == NAMES
    pairs = pairing.find_pairs(root)
    assert len(pairs) == COUNT
    for k, pair in enumerate(pairs):
        indices = masks.decode(pair.read_mask(), found.table)
        np.testing.assert_array_equal(indices, truth(k))
    build_store(root, tmp_path / "store.h5")
    done = convert_folder(root, tmp_path / "out")
    assert done.classes.names == NAMES
    for k, path in enumerate(sorted((tmp_path / "out/masks").iterdir())):
        np.testing.assert_array_equal(np.asarray(Image.open(path)), truth(k))


# --- sets that are divided into parts ---------------------------------------------------------

PARTS = {"train": (0, 1), "valid": (2,), "test": (3,)}


def keep(root, numbers):
    """Remove all images but those of these numbers, and their labels."""
    for file in [f for f in root.rglob("im*") if f.is_file()]:
        if int(file.name[2]) not in numbers:
            file.unlink()
    for file in root.rglob("_annotations*.json"):
        data = json.loads(file.read_text())
        data["images"] = [i for i in data["images"] if i["id"] - 7 in numbers]
        data["annotations"] = [a for a in data["annotations"] if a["image_id"] - 7 in numbers]
        write(file, data)


def divided(build, parts=PARTS):
    def in_parts(root):
        for part_name, numbers in parts.items():
            build(root / part_name)
            keep(root / part_name, numbers)

    return in_parts


def yolo_roboflow(root):
    divided(yolo("names: [cell, debris]"))(root)
    for part_name in PARTS:
        (root / part_name / "data.yaml").rename(root / "data.yaml")


def yolo_parts(root):
    yolo("names: [cell, debris]")(root)
    for part_name, numbers in PARTS.items():
        for kind in ("images", "labels"):
            (root / kind / part_name).mkdir()
            for k in numbers:
                (file,) = (root / kind).glob(f"im{k}.*")
                file.rename(root / kind / part_name / file.name)


def in_folders(root):
    pictures(root)
    for k in range(COUNT):
        (root / "masks").mkdir(exist_ok=True)
        Image.fromarray(truth(k)).save(root / f"masks/im{k}.png")
    toml = "".join(f'[[class]]\nname = "{n}"\nvalue = {i}\n' for i, n in enumerate(NAMES))
    write(root / "classes.toml", toml)


def coco_parts(file, folder):
    """Return a build of one file and one folder for each of train, val and test."""

    def in_parts(root):
        coco(polygon, "labels.json", "all")(root)
        data = json.loads((root / "labels.json").read_text())
        for part_name, numbers in zip(("train", "val", "test"), PARTS.values(), strict=True):
            home = root / folder.format(part_name)
            home.mkdir(parents=True)
            for k in numbers:
                (root / f"all/im{k}.png").rename(home / f"im{k}.png")
            ids = {k + 7 for k in numbers}
            images = [i for i in data["images"] if i["id"] in ids]
            found = [a for a in data["annotations"] if a["image_id"] in ids]
            split = data | {"images": images, "annotations": found}
            write(root / file.format(part_name), split)
        (root / "labels.json").unlink()
        (root / "all").rmdir()

    return in_parts


def coco_official(root):
    coco_parts("annotations/instances_{}2017.json", "{}2017")(root)
    for part_name in ("train", "val"):
        points = {"images": [], "annotations": [], "categories": [{"id": 1, "keypoints": ["nose"]}]}
        write(root / f"annotations/person_keypoints_{part_name}2017.json", points)
        captions = {"images": [], "annotations": [], "info": {}}
        write(root / f"annotations/captions_{part_name}2017.json", captions)


DIVIDED = {
    "COCO, official": coco_official,
    "COCO, images in parts": coco_parts("annotations/instances_{}.json", "images/{}"),
    "COCO, parts beside files": coco_parts("annotations/{}.json", "{}"),
    "COCO, files beside images": coco_parts("images/{}.json", "images/{}"),
    "COCO of Roboflow": divided(coco(polygon, "_annotations.coco.json", ".")),
    "Roboflow masks": divided(roboflow_masks),
    "YOLO of Roboflow": yolo_roboflow,
    "YOLO": yolo_parts,
    "LabelMe": divided(labelme()),
    "Supervisely": divided(supervisely(True)),
    "masks": divided(in_folders),
}


@pytest.mark.parametrize("name", DIVIDED)
def test_parts_are_one_set_that_says_itself_what_is_held_out(tmp_path, name):
    root, numbers = tmp_path / "set", {f"im{k}": k for k in range(COUNT)}
    DIVIDED[name](root)
    found = inspect_folder(root)
    assert found.errors == ()
    assert found.table.names == NAMES
    says = "the set is divided: 1 of val and 1 of test are held out, 2 are trained on"
    assert [f.problem for f in found.findings if "divided" in f.problem] == [says]
    pairs = {pair.name: pair for pair in pairing.find_pairs(root)}
    assert {n: pair.part for n, pair in pairs.items()} == {
        **{"im0": "train", "im1": "train", "im2": "val", "im3": "test"}
    }
    for stem, pair in pairs.items():
        indices = masks.decode(pair.read_mask(), found.table)
        np.testing.assert_array_equal(indices, truth(numbers[stem]))
    sources = build_store(root, tmp_path / "store.h5").info.sources
    assert {s.name[:3]: s.split for s in sources} == {
        **{"im0": "train", "im1": "train", "im2": "val", "im3": "val"}
    }
    done = convert_folder(root, tmp_path / "out")
    assert [folder.name for folder in done.folders] == ["train", "val", "test"]
    for part_name, stems in {"train": ["im0", "im1"], "val": ["im2"], "test": ["im3"]}.items():
        made = sorted((tmp_path / "out" / part_name / "masks").iterdir())
        assert [path.stem for path in made] == stems
        for path in made:
            np.testing.assert_array_equal(np.asarray(Image.open(path)), truth(numbers[path.stem]))
    assert says in [f.problem for f in inspect_folder(tmp_path / "out").findings]


@pytest.mark.parametrize("settings", [{"val": 0.25}, {"group": "im."}, {"val": 0}])
def test_a_divided_set_is_divided_anew_where_the_settings_say_so(tmp_path, settings):
    DIVIDED["masks"](tmp_path / "set")
    settings = PatchSettings(**settings)
    found = inspect_folder(tmp_path / "set", settings)
    assert not [f for f in found.findings if "divided" in f.problem]
    info = build_store(tmp_path / "set", tmp_path / "store.h5", settings).info
    assert len(info.held_out) == (0 if settings.val == 0 else 1)


def test_images_of_one_name_in_several_parts_are_told_apart(tmp_path):
    for part_name, numbers in (("train", (0, 1)), ("val", (2, 3))):
        in_folders(tmp_path / "set" / part_name)
        keep(tmp_path / "set" / part_name, numbers)
        for kind in ("images", "masks"):
            home = tmp_path / "set" / part_name / kind
            (home / f"im{numbers[0]}.png").rename(home / "same.png")
    pairs = pairing.find_pairs(tmp_path / "set")
    assert [pair.name for pair in pairs] == ["im1", "train-same", "im3", "val-same"]
    for pair, k in zip(pairs, (1, 0, 3, 2), strict=True):
        np.testing.assert_array_equal(pair.read_mask().values, truth(k))
    sources = build_store(tmp_path / "set", tmp_path / "store.h5").info.sources
    assert [s.name for s in sources] == ["im1.png", "train-same.png", "im3.png", "val-same.png"]
    convert_folder(tmp_path / "set", tmp_path / "out")
    for part_name, k in (("train", 0), ("val", 2)):
        made = np.asarray(Image.open(tmp_path / "out" / part_name / "masks/same.png"))
        np.testing.assert_array_equal(made, truth(k))


def test_shapes_of_parts_that_lack_a_class_share_the_classes(tmp_path):
    divided(labelme(), {"train": (0, 1), "val": (2, 3)})(tmp_path / "set")
    for k in range(COUNT):
        (file,) = (tmp_path / "set").rglob(f"im{k}.json")
        left_out = "cell" if k < 2 else "debris"
        data = json.loads(file.read_text())
        data["shapes"] = [s for s in data["shapes"] if s["label"] != left_out]
        write(file, data)
    found = inspect_folder(tmp_path / "set")
    assert found.table.names == ("background", "debris", "cell")
    assert len({c.colour for c in found.table}) == 3
    for k, pair in enumerate(pairing.find_pairs(tmp_path / "set")):
        due = np.where(truth(k) == 2, 1, 0) if k < 2 else np.where(truth(k) == 1, 2, 0)
        np.testing.assert_array_equal(pair.read_mask().values, due)


def without_labels(root):
    in_folders(root / "train")
    pictures(root / "test")


def of_two_tools(root):
    labelme()(root / "train")
    coco(polygon)(root / "val")


def of_other_classes(root):
    divided(in_folders)(root)
    file = root / "valid/classes.toml"
    file.write_text(file.read_text().replace("debris", "dirt"))


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (without_labels, "test: holds 4 pictures and no masks"),
        (of_two_tools, "val: holds no LabelMe files, as train/ does"),
        (of_other_classes, "valid: declares other classes than test/"),
    ],
)
def test_parts_that_do_not_belong_together_are_named(tmp_path, build, says):
    build(tmp_path / "set")
    for read in (inspect_folder, lambda root: convert_folder(root, tmp_path / "out")):
        with pytest.raises(InputError) as caught:
            read(tmp_path / "set")
        assert f"{tmp_path / 'set'}/{says}" in str(caught.value)
        assert f"name one of them: {tmp_path / 'set'}/" in str(caught.value)


# --- exports that are refused by name, or asked about ----------------------------------------


def only(name, data=b"x", folder="."):
    def build(root):
        pictures(root)
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / name).write_bytes(data)

    return build


def with_text(build, path, change):
    def changed(root):
        build(root)
        write(root / path, change((root / path).read_text()))

    return changed


def nnunet_channels(root):
    nnunet({"background": 0, "cell": 1})(root)
    pictures(root, "imagesTr", "case_{}_0001.png")
    write(root / "dataset.json", {"channel_names": {"0": "a", "1": "b"}, "labels": {}})


def boxes(box, k):
    return []


def beside_json(file, data):
    """Return a build of images beside a file of another tool."""

    def build(root):
        pictures(root)
        write(root / file, data)

    return build


REFUSED = {
    "Cellpose, arrays": (only("im0_seg.npy"), "Save masks as PNG"),
    "ImageJ regions": (only("RoiSet.zip"), "label image"),
    "ImageJ region": (only("0001.roi", folder="rois"), "label image"),
    "Label Studio brush PNGs": (
        only("task-41-annotation-17-by-1-tag-cell-0.png", folder="masks"),
        "export JSON",
    ),
    "CVAT for images": (only("annotations.xml"), "export COCO"),
    "CVAT for images, without the images": (
        lambda root: write(root / "task-7.xml", '<?xml version="1.0"?>\n<annotations>\n'),
        "task-7.xml: CVAT for images: not read; export COCO 1.0 or Segmentation mask 1.1, and tick "
        "Save images",
    ),
    "Pascal VOC boxes": (only("im0.xml", folder="Annotations"), "export segmentation masks"),
    "NIfTI": (only("case.nii.gz"), "export each slice"),
    "MATLAB": (only("im0.mat", folder="masks"), "imwrite"),
    "shapefile": (only("fields.shp"), "QGIS"),
    "CZI": (only("stack.czi", folder="images"), "save as TIFF"),
    "ilastik": (only("my.ilp"), "export the labels"),
    "NumPy": (only("im0.npy", folder="masks"), "save them as PNG"),
    "COCO boxes": (coco(boxes), "export instance segmentation"),
    "COCO, damaged": (with_text(coco(polygon), "annotations.json", lambda t: t[:-9]), "JSON"),
    "COCO, of another size": (
        coco(lambda b, k: {"size": [H + 1, W], "counts": lengths(part(b, k))}),
        "run lengths for 41 x 48",
    ),
    "COCO, image missing": (
        with_text(coco(polygon), "annotations.json", lambda t: t.replace("im0.png", "no.png")),
        "no.png is not there",
    ),
    "YOLO boxes": (
        with_text(yolo("names: [cell, debris]"), "labels/im0.txt", lambda t: "0 0.5 0.5 0.2 0.2\n"),
        "export YOLO segmentation",
    ),
    "YOLO without names": (yolo("nc: 2\n"), "data.yaml"),
    "YOLO, class without a name": (
        yolo("names: [cell]\n"),
        "class 1 has no name, and names are given to 0",
    ),
    "YOLO, class in a gap": (
        yolo("names: {2: debris, 0: cell}\n"),
        "class 1 has no name, and names are given to 0, 2",
    ),
    "YOLO, one number twice": (yolo("names: {0: cell, 0: debris}\n"), "write names"),
    "YOLO, two lists that differ": (
        lambda root: (
            yolo("names: [cell, debris]")(root),
            write(root / "labels/classes.txt", "debris\ncell\n"),
        ),
        "classes.txt: calls the class 0 'debris', and data.yaml calls it 'cell'; "
        "keep the right one of the two files",
    ),
    "LabelMe, a copied file": (
        with_text(labelme(), "im1.json", lambda t: t.replace("im1.png", "im0.png")),
        "im1.json: labels im0.png by its imagePath, and im1.png by its own name; "
        "mend imagePath, or rename the file",
    ),
    "nnU-Net, classes of another name": (
        lambda root: (
            nnunet({"background": 0, "cell": 1, "debris": 2, "ignore": 3})(root),
            write(
                root / "classes.toml",
                'class = [{name = "background", value = 0}, {name = "debris", value = 1}]',
            ),
        ),
        "classes.toml: calls the value 1 'debris', and nnU-Net calls it 'cell'; "
        "give it one name in both",
    ),
    "nnU-Net, an ignored value as a class": (
        lambda root: (
            nnunet({"background": 0, "cell": 1, "ignore": 2})(root),
            write(
                root / "classes.toml",
                'class = [{name = "background", value = 0}, {name = "Cell", value = 1},'
                '{name = "debris", value = 2}]',
            ),
        ),
        "classes.toml: calls the value 2 'debris', and nnU-Net calls it 'ignore'; "
        "give it one name in both",
    ),
    "YOLO, strange names": (yolo("names: [*anchor, b]\n"), "write names"),
    "VIA lines alone": (
        with_text(via(), "via.json", lambda t: t.replace('"polygon"', '"polyline"')),
        "im0.png holds lines alone: a polyline of 4 points is not drawn; draw it as a polygon, "
        "or give line_width=3",
    ),
    "VIA, a strange shape": (
        with_text(via(), "via.json", lambda t: t.replace('"polygon"', '"spiral"')),
        "draw a polygon",
    ),
    "VIA, no class": (
        with_text(via(), "via.json", lambda t: t.replace('"kind": "debris"', '"kind": ""')),
        "without a class",
    ),
    "COCO, several images missing": (
        with_text(coco(polygon), "annotations.json", lambda t: re.sub(r"im(\d)", r"no\1", t)),
        "annotations.json: 4 of its 4 images are not there: no0.png, no1.png, no2.png, no3.png; "
        "put them into images/",
    ),
    "VIA, image missing": (
        with_text(via(), "via.json", lambda t: t.replace('"im0.png"', '"no.png"')),
        "via.json: its image no.png is not there; put it into images/",
    ),
    "VIA, two files": (
        lambda root: (via()(root), via_rectangles(root / "images")),
        "VIA labels in via.json and via.json; keep one of them in the folder",
    ),
    "Label Studio, two files": (
        lambda root: (
            label_studio("polygonlabels")(root),
            (root / "project-1.json").rename(root / "project-0.json"),
            label_studio("rectanglelabels")(root),
        ),
        "Label Studio labels in project-0.json and project-1.json; keep one",
    ),
    "Label Studio, JSON-MIN": (
        lambda root: (
            pictures(root),
            write(root / "min.json", [{"id": 1, "annotation_id": 2, "image": "im0.png"}]),
        ),
        "min.json: JSON-MIN of Label Studio: not read; export JSON",
    ),
    "VIA, no attribute": (
        with_text(via(), "via.json", lambda t: t.replace('"kind": "debris"', "", 1)),
        "im0.png has a region without a class; give it one",
    ),
    "LabelMe, no label": (
        with_text(labelme(), "im0.json", lambda t: t.replace('"cell"', '""')),
        "a shape without a label; name its class",
    ),
    "COCO, image not listed": (
        with_text(coco(polygon), "annotations.json", lambda t: t.replace('"id": 7,', '"id": 70,')),
        "annotation 0 has the image_id 7, which is not listed",
    ),
    "COCO, two images of one name": (
        with_text(
            renamed(coco(polygon), lambda n: n.replace("im1.png", "im0.tif")),
            "annotations.json",
            lambda t: t.replace("im1.png", "im0.tif"),
        ),
        "im0.tif: has the same name as ",
    ),
    "VIA, two attributes": (
        with_text(
            via(), "via.json", lambda t: t.replace('"kind": "cell"', '"kind": "cell", "who": "a"')
        ),
        "names the class",
    ),
    "Supervisely lines": (
        with_text(
            supervisely(False), "ann/im0.png.json", lambda t: t.replace('"polygon"', '"line"')
        ),
        "export bitmaps",
    ),
    "Label Studio key points": (
        with_text(
            label_studio("polygonlabels"),
            "project-1.json",
            lambda t: t.replace("polygonlabels", "keypointlabels"),
        ),
        "draw polygons or brushes",
    ),
    "QuPath lines alone": (
        with_text(
            qupath(),
            "im0.geojson",
            lambda t: (
                t.replace('"Polygon"', '"LineString"').replace("[[[", "[[").replace("]]]", "]]")
            ),
        ),
        "im0.png holds lines alone: a LineString of 5 points is not drawn; draw it as a polygon, "
        "or give line_width=3",
    ),
    "QuPath, a strange shape": (
        with_text(qupath(), "im0.geojson", lambda t: t.replace('"Polygon"', '"Curve"')),
        "no area",
    ),
    **{
        f"{name}, not read": (beside_json(file, data), f"{file}: {says}")
        for name, file, data, says in (
            (
                "Darwin",
                "annotations/im0.json",
                {"version": "2.0", "item": {"name": "im0.png"}, "annotations": []},
                "V7 Darwin: not read; in V7: export COCO",
            ),
            (
                "Datumaro",
                "annotations/default.json",
                {"info": {}, "categories": {"label": {}}, "items": [{"id": "im0"}]},
                "Datumaro: not read; export COCO",
            ),
            (
                "Labelbox",
                "export.json",
                [{"data_row": {"id": "a"}, "media_attributes": {}, "projects": {}}],
                "Labelbox: not read; save its masks as PNG",
            ),
            (
                "Labelbox of before",
                "export.json",
                [{"ID": "a", "Labeled Data": "https://a.b/c", "Label": {"objects": []}}],
                "Labelbox: not read; save its masks as PNG",
            ),
            (
                "Labelbox, lines",
                "export.ndjson",
                {"data_row": {}},
                "Labelbox: not read; save its masks as PNG",
            ),
            (
                "SuperAnnotate",
                "im0.png.json",
                {"metadata": {"name": "im0.png"}, "instances": [], "tags": []},
                "SuperAnnotate: not read; in SuperAnnotate: export COCO",
            ),
            (
                "Hasty",
                "hasty.json",
                {"export_format_version": "1.1", "label_classes": [], "images": []},
                "Hasty: not read; in Hasty: export COCO",
            ),
            (
                "Segments.ai",
                "set-v1.json",
                {"name": "v1", "dataset": {"name": "a/set", "samples": []}},
                "Segments.ai: not read; with its SDK: export_dataset",
            ),
            (
                "Encord",
                "labels.json",
                [{"label_hash": "a", "data_title": "im0.png", "data_units": {}}],
                "Encord: not read; in Encord: export COCO",
            ),
            (
                "Scale",
                "tasks.json",
                [{"task_id": "a", "params": {}, "response": {"annotations": {}}}],
                "Scale: not read; save its masks as PNG",
            ),
            (
                "VoTT",
                "set-export.json",
                {"name": "set", "assets": {"a": {"asset": {}, "regions": []}}, "tags": []},
                "VoTT: not read; it exports no outlines: draw them in VIA 2, and export JSON",
            ),
            (
                "VoTT, table",
                "vott-csv-export/set-export.csv",
                '"image","xmin","ymin","xmax","ymax","label"\n"im0.png",1,2,9,12,"cell"\n',
                "boxes of VoTT or TensorFlow: not read; draw polygons, and export COCO",
            ),
            (
                "MakeSense",
                "labels.csv",
                "label_name,bbox_x,bbox_y,bbox_width,bbox_height,image_name,image_width,"
                "image_height\ncell,1,2,8,10,im0.png,48,40\n",
                "boxes of MakeSense: not read; in MakeSense: draw polygons, and export COCO",
            ),
            (
                "MakeSense, without names of columns",
                "labels.csv",
                "cell,1,2,8,10,im0.png,48,40\n",
                "boxes of MakeSense: not read; in MakeSense: draw polygons, and export COCO",
            ),
            (
                "Nucleus",
                "annotations.json",
                [{"label": "cell", "type": "polygon", "geometry": {}, "reference_id": "im0"}],
                "Scale Nucleus: not read; save its masks as PNG",
            ),
            (
                "Nucleus, items",
                "export.json",
                [{"item": {"reference_id": "im0"}, "annotations": {"polygon": []}}],
                "Scale Nucleus: not read; save its masks as PNG",
            ),
            (
                "Cityscapes",
                "gtFine/im0_gtFine_polygons.json",
                {"imgHeight": H, "imgWidth": W, "objects": []},
                "Cityscapes polygons: not read; take its *_labelIds.png as masks",
            ),
            (
                "VIA 3",
                "via_project.json",
                {
                    "project": {},
                    "config": {},
                    "attribute": {},
                    "file": {},
                    "metadata": {},
                    "view": {},
                },
                "VIA 3: not read; label with VIA 2, and export JSON",
            ),
        )
    },
    "YOLO, key points": (
        yolo("kpt_shape: [3, 2]\nnames: [cell, debris]\n"),
        "data.yaml: YOLO's key points, which have no outlines; export YOLO segmentation",
    ),
    "Label Studio, two pictures a task": (
        with_text(
            label_studio("polygonlabels"),
            "project-1.json",
            lambda t: t.replace('"type"', '"to_name": "left", "type"').replace("left", "right", 1),
        ),
        "the task of im0.png has regions of several pictures, left and right; "
        "label one picture a task",
    ),
    "Label Studio, two pictures in a task": (
        with_text(
            label_studio("polygonlabels"),
            "project-1.json",
            lambda t: t.replace('"data": {', '"data": {"before": "/data/upload/1/a%20b.png", ', 1),
        ),
        "a task of several pictures, a b.png and im0.png; label one picture a task",
    ),
    "nnU-Net, a file for each channel": (nnunet_channels, "save one TIFF"),
    "LabelMe lines": (labelme(kind="linestrip"), "draw it as a polygon"),
    "labelmap, damaged": (with_text(cvat(), "labelmap.txt", lambda t: t + "x\n"), "write name"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_export_that_is_not_read_says_what_to_do(tmp_path, name):
    build, says = REFUSED[name]
    build(tmp_path / "set")
    with pytest.raises(InputError) as convert:
        convert_folder(tmp_path / "set", tmp_path / "out")
    assert says in str(convert.value)
    assert "unetseg convert" not in str(convert.value)
    try:
        message = " ".join(map(str, inspect_folder(tmp_path / "set").errors))
    except InputError as error:
        message = str(error)
    assert says in message


def test_shapes_without_an_area_are_counted_in_one_warning(tmp_path):
    others = [("crack", "linestrip", 3), ("crack", "linestrip", 2), ("tip", "point", 1)]
    labelme(others=others)(tmp_path / "set")
    says = (
        "shapes without an area are left out (line_width=3 draws them 3 pixels wide): "
        "8 linestrips of 'crack', 4 points of 'tip'"
    )
    found = inspect_folder(tmp_path / "set").findings
    (warning,) = [f for f in found if f.severity == "warning"]
    assert worded(warning.problem, as_argument) == says
    with pytest.warns(UnetsegWarning) as warned:
        convert_folder(tmp_path / "set", tmp_path / "out")
    assert [str(w.message) for w in warned] == [f"{tmp_path / 'set'}: {says}"]


def test_an_image_with_lines_alone_is_refused_as_it_would_be_all_background(tmp_path):
    labelme()(tmp_path / "set")
    line = {"label": "crack", "points": [[1, 1], [9, 30]], "shape_type": "line"}
    write(tmp_path / "set/im2.json", {"imagePath": "im2.png", "shapes": [line]})
    with pytest.raises(InputError, match=r"a line of 2 points is not drawn; .* line_width=3"):
        inspect_folder(tmp_path / "set")


def brushed(points, width):
    """Return (40, 48): a line as Pillow draws it 33 times as large, with round ends."""
    canvas = Image.new("1", (33 * W, 33 * H))
    places = [(33 * x + 16, 33 * y + 16) for x, y in points]
    pen = ImageDraw.Draw(canvas)
    pen.line(places, 1, round(33 * width))
    for place in places:
        pen.circle(place, 16.5 * width, 1)
    return np.asarray(canvas)[16::33, 16::33]  # the middle of each pixel


@pytest.mark.parametrize("width", [1, 2.5, 4, 7])
def test_lines_and_points_are_drawn_as_wide_as_asked_for(tmp_path, width):
    strips = {"crack": [[3.2, 4.1], [20.7, 30.4], [40.3, 28.9]], "tip": [[33.3, 12.6]]}
    pictures(tmp_path / "set", ".")
    for k in range(COUNT):
        found = [
            {"label": "crack", "points": strips["crack"], "shape_type": "linestrip"},
            {"label": "tip", "points": strips["tip"], "shape_type": "point"},
        ]
        write(tmp_path / f"set/im{k}.json", {"imagePath": f"im{k}.png", "shapes": found})
    due = {name: brushed(points, width) for name, points in strips.items()}
    settings = PatchSettings(line_width=width)
    found = inspect_folder(tmp_path / "set", settings)
    assert found.table.names == ("background", "crack", "tip")
    assert not [f for f in found.findings if "left out" in f.problem]
    mask = found.surveys[0].pair.read_mask().values
    for index, (name, pixels) in enumerate(due.items(), 1):
        (y, x), at_fault = np.indices((H, W)), (mask == index) != pixels
        distance = to_line(x, y, strips[name])
        assert (np.abs(distance - width / 2)[at_fault] < 0.05).all()
        assert at_fault.sum() < 0.05 * pixels.sum()
    info = build_store(tmp_path / "set", tmp_path / "store.h5", settings).info
    assert info.classes.names == ("background", "crack", "tip")
    assert info.settings["line_width"] == width
    convert_folder(tmp_path / "set", tmp_path / "out", line_width=width)
    made = np.asarray(Image.open(tmp_path / "out/masks/im0.png"))
    np.testing.assert_array_equal(made, mask)


def to_line(x, y, points):
    """Return the distance of each pixel to a line, sampled at many points."""
    places = np.array(points, float)
    steps = np.linspace(0, 1, 400)[:, None]
    many = [a + steps * (b - a) for a, b in itertools.pairwise(places)]
    samples = np.concatenate([places, *many])
    return np.min([np.hypot(x - a, y - b) for a, b in samples], axis=0)


def test_a_width_for_lines_is_refused_where_there_are_no_shapes(tmp_path):
    in_folders(tmp_path / "set")
    with pytest.raises(InputError, match="line_width: does nothing here"):
        convert_folder(tmp_path / "set", tmp_path / "out", line_width=3)
    for width in (0, 1001):
        with pytest.raises(InputError, match=f"line_width: {width} is out of range"):
            convert_folder(tmp_path / "set", tmp_path / "out", line_width=width)


def test_the_zoo_holds_sixty_exports():
    assert len(READ) + len(REFUSED) >= 60


def test_an_export_is_read_once(tmp_path, monkeypatch):
    READ["LabelMe"](tmp_path / "set")
    calls, find = [], pairing.find_export

    def counted(folder, line_width):
        calls.append(folder)
        return find(folder, line_width)

    monkeypatch.setattr(pairing, "find_export", counted)
    inspect_folder(tmp_path / "set")
    assert calls == [tmp_path / "set"]
    monkeypatch.chdir(tmp_path)
    quick = [
        "--network",
        "compact",
        "--width",
        "4",
        "--epochs",
        "1",
        "--size",
        "16",
        "--device",
        "cpu",
    ]
    assert main(["train", "set", *quick]) == 0
    assert calls == [tmp_path / "set", Path("set")]


# --- images of another size than those that were labelled --------------------------------------


def labelme_of_size(root):
    labelme()(root)
    for file in root.glob("*.json"):
        write(file, json.loads(file.read_text()) | {"imageHeight": H, "imageWidth": W})


def without_size(build):
    def bare(root):
        build(root)
        data = json.loads((root / "annotations.json").read_text())
        for image in data["images"]:
            image["height"] = image["width"] = 0
        write(root / "annotations.json", data)

    return bare


BEYOND = "its labels reach beyond them"
STATED = f"its labels were drawn on {H} x {W}"
RESIZED = {
    "LabelMe": (labelme_of_size, STATED),
    "LabelMe without a size": (labelme(), BEYOND),
    "COCO": (coco(polygon), STATED),
    "COCO run lengths": (coco(packed_runs), STATED),
    "COCO without a size": (
        without_size(coco(polygon)),
        BEYOND,
    ),
    "VIA": (via(), BEYOND),
    "VIA rectangles": (via_rectangles, BEYOND),
    "QuPath": (qupath(), BEYOND),
    "Supervisely polygons": (supervisely(False), STATED),
    "Supervisely bitmaps": (supervisely(True), STATED),
    "Label Studio brushes": (label_studio("brushlabels"), STATED),
}


def resize(root, shape):
    """Resize all images to this (height, width)."""
    for file in root.rglob("im*.png"):
        Image.open(file).resize(shape[::-1]).save(file)


@pytest.mark.parametrize("name", RESIZED)
def test_images_that_were_reduced_after_labelling_are_refused(tmp_path, name):
    build, says = RESIZED[name]
    build(tmp_path / "set")
    resize(tmp_path / "set", (H // 2, W // 2))
    errors = inspect_folder(tmp_path / "set").errors
    assert sum(len(error.files) for error in errors) == COUNT
    assert [Path(file).name for e in errors for file in e.files] == [f"im{k}.png" for k in range(4)]
    assert "has 20 x 24 pixels (rows x columns), and " in str(errors[0])
    assert says in str(errors[0])
    assert "put the image there that was labelled" in str(errors[0])
    with pytest.raises(InputError) as caught:
        convert_folder(tmp_path / "set", tmp_path / "out")
    assert caught.value.subject.name == "im0.png"
    assert says in str(caught.value)


@pytest.mark.parametrize("name", [n for n, (_, says) in RESIZED.items() if STATED in says])
def test_images_that_were_enlarged_or_turned_after_labelling_are_refused(tmp_path, name):
    RESIZED[name][0](tmp_path / "set")
    resize(tmp_path / "set", (2 * H, 2 * W))
    assert f"has 80 x 96 pixels (rows x columns), and {STATED}" in str(
        inspect_folder(tmp_path / "set").errors[0]
    )
    resize(tmp_path / "set", (W, H))
    assert f"and {STATED}, rows and columns exchanged" in str(
        inspect_folder(tmp_path / "set").errors[0]
    )


def test_an_image_that_exif_turns_says_so_where_its_labels_were_drawn_on_it_as_stored(tmp_path):
    coco(polygon, name="im{}.tif")(tmp_path / "set")
    for file in (tmp_path / "set/images").iterdir():
        exif = Image.Exif()
        exif[274] = 6
        Image.open(file).save(file, exif=exif)
    (error, *_) = inspect_folder(tmp_path / "set").errors
    assert "has 48 x 40 pixels (rows x columns)" in str(error)
    assert f"{STATED}, rows and columns exchanged" in str(error)
    assert "remove the orientation by which EXIF turns this one" in str(error)


@pytest.mark.parametrize("kind", ["polygonlabels", "rectanglelabels"])
@pytest.mark.parametrize("factor", [0.5, 2])
def test_labels_in_percent_fit_an_image_of_any_size_but_not_a_turned_one(tmp_path, kind, factor):
    label_studio(kind)(tmp_path / "set")
    resize(tmp_path / "set", (int(H * factor), int(W * factor)))
    for k, pair in enumerate(pairing.find_pairs(tmp_path / "set")):
        due = truth(k)[::2, ::2] if factor < 1 else truth(k).repeat(2, 0).repeat(2, 1)
        got = pair.read_mask().values
        assert (got != due).sum() <= (0 if k % 2 == 0 or factor > 1 else 40)
    resize(tmp_path / "set", (W, H))
    (error, *_) = inspect_folder(tmp_path / "set").errors
    assert f"{STATED}, rows and columns exchanged" in str(error)


def test_shapes_that_reach_a_little_over_the_edge_are_clipped(tmp_path):
    via()(tmp_path / "set")
    data = json.loads((tmp_path / "set/via.json").read_text())
    region = data["im0.png123"]["regions"][1]["shape_attributes"]
    region["all_points_x"] = [32, W + 2, W + 2, 32]
    region["all_points_y"] = [-2, -2, 14, 14]
    write(tmp_path / "set/via.json", data)
    assert inspect_folder(tmp_path / "set").errors == ()
    mask = pairing.find_pairs(tmp_path / "set")[0].read_mask().values
    assert (mask[:14, 32:] == 2).all()
    assert (mask == 2).sum() == 14 * (W - 32)
    region["all_points_x"] = [32, W + 4, W + 4, 32]
    write(tmp_path / "set/via.json", data)
    (error,) = inspect_folder(tmp_path / "set").errors
    assert BEYOND in str(error)


def test_texts_beside_images_that_hold_no_outlines_are_no_labels(tmp_path):
    roboflow_masks(tmp_path / "set")
    write(tmp_path / "set/im0.txt", "a cell at 0.5 0.5, seen on day 3\n")
    write(tmp_path / "set/im1.txt", "0 0.5 0.5 0.2 0.2\n")
    write(tmp_path / "set/im2.txt", "1 17.5 3.25 8 9 10 11\n2 17.5 3.5 8 9 10 12\n")
    write(tmp_path / "set/im3.txt", "1 0.5 0.5 0.25 0.5 0.75 0.5 0.25\n")
    assert len(pairing.find_pairs(tmp_path / "set")) == COUNT


def test_corners_of_yolo_in_pixels_are_refused(tmp_path):
    yolo("names: [cell, debris]")(tmp_path / "set")
    write(tmp_path / "set/labels/im0.txt", "0 10 8 30 8 30 28\n")
    with pytest.raises(InputError, match=r"im0.txt: .* no share of the image, 0 to 1"):
        inspect_folder(tmp_path / "set")


# --- objects of CVAT and Pascal VOC ------------------------------------------------------------

TWO_CELLS = ((4, 8, 16, 28), (16, 8, 30, 28))  # they touch, and both are cells


def voc_objects(labelmap=True, palette=False, void=False):
    """Return a build of two touching cells and a piece of debris, each object in its colour."""
    colours = np.zeros((256, 3), np.uint8)
    colours[:5] = [(0, 0, 0), (250, 50, 83), (52, 209, 183), (128, 0, 0), (0, 128, 0)]
    colours[255] = (224, 224, 192)

    def save(path, indices):
        path.parent.mkdir(parents=True, exist_ok=True)
        if palette:
            image = Image.fromarray(indices)
            image.putpalette(colours.tobytes())
        else:
            image = Image.fromarray(colours[indices])
        image.save(path)

    def build(root):
        pictures(root, "JPEGImages")
        for k in range(COUNT):
            kinds, objects = np.zeros((2, H, W), np.uint8)
            for number, (kind, box) in enumerate(
                zip((1, 1, 2), (*TWO_CELLS, OTHER), strict=True), 1
            ):
                kinds[part(box, k) == 1], objects[part(box, k) == 1] = kind, number
            if void:
                kinds[-3:], objects[-3:] = 255, 255
            save(root / f"SegmentationClass/im{k}.png", kinds)
            save(root / f"SegmentationObject/im{k}.png", objects)
        if labelmap:
            text = "debris:52,209,183::\nbackground:0,0,0::\ncell:250,50,83::\n"
            write(root / "labelmap.txt", text)

    return build


@pytest.mark.parametrize("palette", [False, True])
@pytest.mark.parametrize("void", [False, True])
def test_objects_of_cvat_masks_keep_their_classes_and_touching_ones_their_border(
    tmp_path, palette, void
):
    voc_objects(palette=palette, void=void)(tmp_path / "set")
    done = convert_folder(tmp_path / "set", tmp_path / "out", instances=True)
    assert done.classes.names == ("background", "debris", "debris border", "cell", "cell border")
    assert done.objects == 3 * COUNT
    for k in range(COUNT):
        made = np.asarray(Image.open(tmp_path / f"out/masks/im{k}.png"))
        due = np.zeros((H, W), np.uint8)
        for kind, box in zip((3, 3, 1), (*TWO_CELLS, OTHER), strict=True):
            x0, y0, x1, y1 = moved(box, k)
            due[y0:y1, x0:x1] = kind + 1
            due[y0 + 1 : y1 - 1, x0 + 1 : x1 - 1] = kind
        if void:
            due[-3:] = 255
        np.testing.assert_array_equal(made, due)
        numbers = tifffile.imread(tmp_path / f"out/objects/im{k}.tif")
        assert len(np.unique(numbers)) == 4


def test_objects_of_pascal_voc_without_a_list_of_classes_are_named_by_colour(tmp_path):
    voc_objects(labelmap=False, palette=True, void=True)(tmp_path / "set")
    done = convert_folder(tmp_path / "set", tmp_path / "out", instances=True)
    assert done.objects == 3 * COUNT
    assert len(done.classes.names) == 5
    assert done.ignored == 3 * W * COUNT


def test_a_mask_without_its_objects_is_named(tmp_path):
    voc_objects()(tmp_path / "set")
    path = tmp_path / "set/SegmentationObject/im2.png"
    path.unlink()
    with pytest.raises(InputError) as caught:
        convert_folder(tmp_path / "set", tmp_path / "out", instances=True)
    assert str(caught.value) == f"{path}: not found; add it, or move SegmentationObject/ out"


# --- images and labels that are left out -------------------------------------------------------

UNLABELLED = {
    "LabelMe": (labelme(), ".", "LabelMe files"),
    "COCO": (coco(polygon), "images", "annotations.json"),
    "VIA": (via(), "images", "via.json"),
    "QuPath": (qupath(), "images", "QuPath GeoJSON"),
    "Supervisely": (supervisely(True), "img", "Supervisely"),
    "Label Studio": (label_studio("polygonlabels"), "images", "project-1.json"),
}


@pytest.mark.parametrize("name", UNLABELLED)
def test_images_without_labels_are_named_in_one_warning(tmp_path, name):
    build, folder, where = UNLABELLED[name]
    build(tmp_path / "set")
    picture(tmp_path / "set" / folder / "new.png", 0)
    says = f"1 image has no labels in {where} and is left out: new.png"
    found = inspect_folder(tmp_path / "set").findings
    assert [f.problem for f in found if f.severity == "warning"] == [says]
    for k in range(5):
        picture(tmp_path / "set" / folder / f"new{k}.png", 0)
    says = f"6 images have no labels in {where} and are left out: "
    says += "new0.png, new1.png, new2.png, new3.png, ..."
    with pytest.warns(UnetsegWarning) as warned:
        convert_folder(tmp_path / "set", tmp_path / "out")
    assert [str(w.message) for w in warned] == [f"{tmp_path / 'set'}: {says}"]


def test_images_of_other_folders_are_named_and_masks_are_no_images(tmp_path):
    labelme()(tmp_path / "set/day1")
    picture(tmp_path / "set/day2/new.png", 0)
    picture(tmp_path / "set/day1/flat.png", 0)
    picture(tmp_path / "set/day1/flat_mask.png", 0)
    assert pairing.read_set(tmp_path / "set").warnings == (
        "2 images have no labels in LabelMe files and are left out: flat.png, new.png",
    )


@pytest.mark.parametrize(
    ("build", "kind"),
    [
        (qupath(), "QuPath GeoJSON"),
        (coco(polygon, "annotations/instances_default.json"), "COCO"),
        (cvat("images", "masks"), "masks"),
        (roboflow_masks, "masks"),
    ],
)
def test_folders_with_labels_of_two_kinds_are_refused(tmp_path, build, kind):
    labelme()(tmp_path / "day1")
    build(tmp_path / "day2")
    with pytest.raises(InputError) as caught:
        pairing.read_set(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: holds LabelMe files, and {kind} in day2/; "
        "name one folder, or export all from one tool"
    )


def test_masks_beside_labels_that_are_read_are_counted(tmp_path):
    labelme(beside=False)(tmp_path)
    pictures(tmp_path, "masks")
    assert pairing.read_set(tmp_path).warnings == (
        "masks/ holds 4 masks that are not read; move json/ away to use them",
    )


def test_polygons_without_an_area_are_counted_in_one_warning(tmp_path):
    coco(polygon)(tmp_path / "set")
    file = tmp_path / "set/annotations.json"
    data = json.loads(file.read_text())
    for image, outline in ((7, []), (8, [1, 1, 9, 9]), (8, [5, 5])):
        flat = {"image_id": image, "category_id": 2, "segmentation": [outline]}
        data["annotations"].append(flat)
    write(file, data)
    found = inspect_folder(tmp_path / "set").findings
    assert [f.problem for f in found if f.severity == "warning"] == [
        "polygons of fewer than 3 points are left out: 3, in im0.png, im1.png"
    ]


@pytest.mark.parametrize("name", ["VIA", "QuPath"])
def test_lines_of_any_tool_are_left_out_or_drawn_as_those_of_labelme(tmp_path, name):
    root, places = tmp_path / "set", [[2, 33], [44, 33]]  # below all boxes
    if name == "VIA":
        via()(root)
        data = json.loads((root / "via.json").read_text())
        xs, ys = zip(*places, strict=True)
        data["im0.png123"]["regions"] += [
            {"shape_attributes": shape, "region_attributes": {"kind": label}}
            for shape, label in (
                ({"name": "polyline", "all_points_x": xs, "all_points_y": ys}, "crack"),
                ({"name": "point", "cx": 5, "cy": 37}, "tip"),
            )
        ]
        write(root / "via.json", data)
        kinds = ("polyline", "point")
    else:
        qupath()(root)
        data = json.loads((root / "im0.geojson").read_text())
        data["features"] += [
            {
                "type": "Feature",
                "geometry": {"type": kind, "coordinates": coordinates},
                "properties": {"classification": {"name": label}},
            }
            for kind, coordinates, label in (
                ("LineString", places, "crack"),
                ("Point", [5, 37], "tip"),
            )
        ]
        write(root / "im0.geojson", data)
        kinds = ("LineString", "Point")
    found = inspect_folder(root)
    assert found.table.names == NAMES
    (warning,) = [f for f in found.findings if f.severity == "warning"]
    assert worded(warning.problem, as_argument) == (
        "shapes without an area are left out (line_width=3 draws them 3 pixels wide): "
        f"1 {kinds[0]} of 'crack', 1 {kinds[1]} of 'tip'"
    )
    drawn = inspect_folder(root, PatchSettings(line_width=2))
    assert drawn.table.names == ("background", "cell", "crack", "debris", "tip")
    mask = drawn.surveys[0].pair.read_mask().values
    np.testing.assert_array_equal(np.unique(np.nonzero(mask == 2)[0]), [32, 33])
    assert (mask[32:34, 3:43] == 2).all()
    np.testing.assert_array_equal(np.argwhere(mask == 4), [(36, 4), (36, 5), (37, 4), (37, 5)])


@pytest.mark.parametrize("tool", ["COCO", "LabelMe"])
def test_images_of_one_name_in_several_folders_are_told_apart_by_these(tmp_path, tool):
    root = tmp_path / "set"
    (coco(polygon) if tool == "COCO" else labelme(beside=False))(root)
    for k, day in enumerate(("day1", "day2")):
        (root / "images" / day).mkdir()
        (root / f"images/im{k}.png").rename(root / f"images/{day}/same.png")
        for file in root.rglob("*.json"):
            write(file, file.read_text().replace(f"im{k}.png", f"{day}/same.png"))
    pairs = pairing.find_pairs(root)
    assert [pair.name for pair in pairs] == ["day1-same", "day2-same", "im2", "im3"]
    for k, pair in enumerate(pairs):
        np.testing.assert_array_equal(pair.read_mask().values, truth(k))
    sources = build_store(root, tmp_path / "store.h5").info.sources
    assert {s.name for s in sources} == {"day1-same.png", "day2-same.png", "im2.png", "im3.png"}
    convert_folder(root, tmp_path / "out")
    for k, name in enumerate(("day1-same", "day2-same", "im2", "im3")):
        made = np.asarray(Image.open(tmp_path / f"out/masks/{name}.png"))
        np.testing.assert_array_equal(made, truth(k))
        image = tmp_path / f"out/images/{name}.png"
        assert image.read_bytes() == pairs[k].image.read_bytes()


def test_parts_of_coco_keep_images_of_one_name_apart(tmp_path):
    coco_official(tmp_path / "set")
    root = tmp_path / "set"
    for part_name, old in (("train", "im1"), ("val", "im2")):
        (root / f"{part_name}2017/{old}.png").rename(root / f"{part_name}2017/same.png")
        file = root / f"annotations/instances_{part_name}2017.json"
        write(file, file.read_text().replace(f"{old}.png", "same.png"))
    pairs = {pair.name: pair for pair in pairing.find_pairs(root)}
    assert sorted(pairs) == ["im0", "im3", "train-same", "val-same"]
    for name, k in (("train-same", 1), ("val-same", 2)):
        assert pairs[name].image.parent.name == name[:-5] + "2017"
        np.testing.assert_array_equal(pairs[name].read_mask().values, truth(k))


def test_coco_files_whose_parts_are_unclear_are_asked_about(tmp_path):
    coco(polygon)(tmp_path / "set")
    text = (tmp_path / "set/annotations.json").read_text()
    write(tmp_path / "set/train.json", text)
    assert inspect_folder(tmp_path / "set").errors == ()  # one file twice
    write(tmp_path / "set/train.json", text.replace("debris", "dirt"))
    with pytest.raises(InputError) as caught:
        inspect_folder(tmp_path / "set")
    assert str(caught.value) == (
        f"{tmp_path / 'set'}: COCO labels in annotations.json and train.json; "
        "keep one of them in the folder, or one for each of train, val and test"
    )


def test_two_annotations_of_a_task_are_named_with_their_image(tmp_path):
    label_studio("polygonlabels", "3f2a91c0-")(tmp_path / "set")
    file = tmp_path / "set/project-1.json"
    tasks = json.loads(file.read_text())
    (done,) = tasks[2]["annotations"]
    tasks[2]["annotations"] = [done | {"id": 17}, done | {"id": 18}]
    write(file, tasks)
    with pytest.raises(InputError) as caught:
        inspect_folder(tmp_path / "set")
    assert str(caught.value) == (
        f"{file}: Label Studio: task 42 has 2 annotations of one image, 3f2a91c0-im2.png: "
        "numbers 17 and 18; in Label Studio, delete all but one; then export again"
    )
    tasks[2]["annotations"][0]["was_cancelled"] = True
    write(file, tasks)
    assert inspect_folder(tmp_path / "set").errors == ()


def test_findings_about_drawn_masks_name_their_images(tmp_path):
    coco(polygon)(tmp_path / "set")
    data = json.loads((tmp_path / "set/annotations.json").read_text())
    data["annotations"] = [a for a in data["annotations"] if a["image_id"] != 7]
    write(tmp_path / "set/annotations.json", data)
    found = inspect_folder(tmp_path / "set").findings
    (warning,) = [f for f in found if "nothing but background" in f.problem]
    assert warning.files == (str(tmp_path / "set/images/im0.png"),)


# --- shapes under the classes of a file -------------------------------------------------------

CLASSES_OF_A_FILE = """
ignore = [255]
class = [
    {name = "background", value = 0}, {name = "crack", value = 1},
    {name = "debris", value = 300}, {name = "cell", value = 3},
]
"""


def test_shapes_are_of_the_class_of_their_name_in_the_file_of_classes(tmp_path):
    labelme()(tmp_path)
    write(tmp_path / "other.toml", CLASSES_OF_A_FILE)
    labelled = pairing.read_set(tmp_path, tmp_path / "other.toml")
    index = np.array([0, 3, 2])  # of background, cell and debris
    for k, pair in enumerate(labelled.pairs):
        np.testing.assert_array_equal(pair.labels(labelled.classes), index[truth(k)])


def test_a_class_of_shapes_whose_value_is_ignored_is_ignored(tmp_path):
    labelme()(tmp_path)
    write(
        tmp_path / "classes.toml",
        'ignore = [2]\nclass = [{name = "background", value = 0}, {name = "cell", value = 1}]',
    )
    labelled = pairing.read_set(tmp_path)
    index = np.array([0, 1, 255])
    for k, pair in enumerate(labelled.pairs):
        np.testing.assert_array_equal(pair.labels(labelled.classes), index[truth(k)])


@pytest.mark.parametrize("is_given", [False, True])
def test_a_conversion_takes_the_file_of_classes_that_a_check_takes(tmp_path, is_given):
    root = tmp_path / "set"
    labelme()(root)
    write(tmp_path / "own.toml" if is_given else root / "classes.toml", CLASSES_OF_A_FILE)
    classes = tmp_path / "own.toml" if is_given else None
    convert_folder(root, tmp_path / "made", classes=classes)
    made = pairing.read_set(tmp_path / "made")
    assert made.classes.names == ("background", "crack", "debris", "cell")
    index = np.array([0, 3, 2])
    for k, pair in enumerate(made.pairs):
        np.testing.assert_array_equal(pair.labels(made.classes), index[truth(k)])


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (
            '{name = "background", value = 0}, {name = "cells", value = 1}',
            "does not name cell, a class of shapes; did you mean 'cells'? name it there",
        ),
        (
            '{name = "cell", value = 0}, {name = "debris", value = 1}',
            "gives the value 0, which pixels of no shape have, to cell; give it to 'background'",
        ),
        (
            '{name = "dirt", value = 0}, {name = "background", value = 1},'
            '{name = "cell", value = 2}, {name = "debris", value = 3}',
            "gives the value 0, which pixels of no shape have, to dirt; give it to 'background'",
        ),
        (
            '{name = "background", colour = "#000000"}, {name = "cell", colour = "#ff0000"},'
            '{name = "debris", colour = "#00ff00"}',
            "gives cell a colour, and shapes have none; give each class a value",
        ),
    ],
)
def test_a_file_that_leaves_open_what_a_shape_is_of_is_refused(tmp_path, classes, words):
    labelme()(tmp_path)
    write(tmp_path / "classes.toml", f"class = [{classes}]")
    with pytest.raises(InputError) as caught:
        pairing.read_set(tmp_path)
    assert str(caught.value).endswith(words)


# --- shapes over each other --------------------------------------------------------------------

INNER = (14, 12, 20, 18)  # inside of a cell


def debris_inside(root, build):
    """Build a set whose debris lies inside of the cells, and is listed before them."""
    build(root)
    for k in range(COUNT):
        x0, y0, x1, y1 = moved(INNER, k)
        lines = f"1 {x0 / W} {y0 / H} {x1 / W} {y0 / H} {x1 / W} {y1 / H} {x0 / W} {y1 / H}\n"
        if (file := root / f"labels/im{k}.txt").exists():
            write(file, lines + file.read_text().splitlines()[0])
        if (file := root / f"im{k}.geojson").exists():
            data = json.loads(file.read_text())
            data["features"][1]["geometry"]["coordinates"] = [corners(INNER, k)]
            write(file, data | {"features": data["features"][::-1]})
        if (file := root / f"im{k}.json").exists():
            data = json.loads(file.read_text())
            data["shapes"][1]["points"] = inner(INNER, k)
            write(file, data | {"shapes": data["shapes"][::-1]})
    if (file := root / "annotations.json").exists():
        data = json.loads(file.read_text())
        for one in data["annotations"]:
            if one["category_id"] == 2:
                one["segmentation"] = polygon(INNER, one["image_id"] - 7)
        write(file, data | {"annotations": data["annotations"][::-1]})


NO_ORDER = {"COCO": coco(polygon), "YOLO": yolo("names: [cell, debris]"), "QuPath": qupath()}


@pytest.mark.parametrize("tool", NO_ORDER)
def test_a_smaller_shape_lies_on_a_larger_one_where_labels_have_no_order(tmp_path, tool):
    root = tmp_path / "set"
    debris_inside(root, NO_ORDER[tool])
    found = inspect_folder(root)
    assert [f for f in found.findings if f.severity != "note"] == []
    for k, pair in enumerate(pairing.find_pairs(root)):
        due = part(BOX, k)
        due[part(INNER, k) == 1] = 2
        np.testing.assert_array_equal(pair.read_mask().values, due)


HIDDEN = "shapes that others cover wholly are in no mask: 4 of 'debris' in 4 images"


def test_a_shape_below_later_ones_is_counted_by_check_and_by_convert(tmp_path):
    root = tmp_path / "set"
    debris_inside(root, labelme())
    warnings = [f for f in inspect_folder(root).findings if f.severity == "warning"]
    assert [(f.problem, len(f.files)) for f in warnings if "cover" in f.problem] == [(HIDDEN, 4)]
    with pytest.warns(UnetsegWarning) as warned:
        convert_folder(root, tmp_path / "out")
    assert [str(w.message) for w in warned] == [f"{root}: {HIDDEN}"]
    for k, pair in enumerate(pairing.find_pairs(root)):
        np.testing.assert_array_equal(pair.read_mask().values, part(BOX, k))


def test_two_shapes_of_one_class_hide_each_other_only_as_objects(tmp_path):
    root = tmp_path / "set"
    debris_inside(root, labelme())
    for file in root.glob("*.json"):
        write(file, file.read_text().replace("debris", "cell"))
    assert [f for f in inspect_folder(root).findings if "cover" in f.problem] == []
    with pytest.warns(UnetsegWarning) as warned:
        done = convert_folder(root, tmp_path / "out", instances=True)
    assert [str(w.message) for w in warned] == [f"{root}: {HIDDEN.replace('debris', 'cell')}"]
    assert done.objects == COUNT


# --- images that were changed after labelling, where no size is stated ---------------------------

GRID = [(2 + 15 * i, 1 + 12 * j) for i in range(3) for j in range(3)]  # corners of boxes 12 x 10


def five(x, y):
    """Return the corners of a box of 12 x 10 that lacks a corner."""
    return [[x, y], [x + 12, y], [x + 12, y + 10], [x + 4, y + 10], [x, y + 6]]


def labelme_grid(root, places):
    pictures(root, ".")
    for k in range(COUNT):
        found = [
            {"label": "cell", "points": five(x, y + k), "shape_type": "polygon"} for x, y in places
        ]
        write(root / f"im{k}.json", {"imagePath": f"im{k}.png", "shapes": found})


def via_grid(root, places):
    pictures(root)
    entries = {
        f"im{k}.png-1": {
            "filename": f"im{k}.png",
            "size": -1,
            "regions": [
                {
                    "shape_attributes": {
                        "name": "polygon",
                        "all_points_x": [p[0] for p in five(x, y + k)],
                        "all_points_y": [p[1] for p in five(x, y + k)],
                    },
                    "region_attributes": {"kind": "cell"},
                }
                for x, y in places
            ],
        }
        for k in range(COUNT)
    }
    write(root / "via.json", entries)


def qupath_grid(root, places):
    pictures(root)
    for k in range(COUNT):
        found = [
            {
                "type": "Feature",
                "geometry": {
                    "type": "Polygon",
                    "coordinates": [five(x, y + k)],
                },
                "properties": {"classification": {"name": "cell"}},
            }
            for x, y in places
        ]
        write(root / f"im{k}.geojson", found)


@pytest.mark.parametrize("factor", [1.5, 2, 4])
@pytest.mark.parametrize("build", [labelme_grid, via_grid, qupath_grid])
def test_images_that_were_enlarged_are_asked_about_where_labels_state_no_size(
    tmp_path, build, factor
):
    root = tmp_path / "set"
    build(root, GRID)
    resize(root, (int(H * factor), int(W * factor)))
    (text,) = pairing.read_set(root).warnings
    last = 44, 38
    share = [
        f"{100 * place / side / factor:.0f} %" for place, side in zip(last, (W, H), strict=True)
    ]
    assert text == (
        f"all 36 shapes of 4 images lie in the first {share[0]} of the columns and {share[1]} of "
        "the rows: were the images enlarged after labelling? Then put those there that were "
        "labelled; if objects lie in this part alone, all is well"
    )
    assert text in [f.problem for f in inspect_folder(root).findings if f.severity == "warning"]


@pytest.mark.parametrize("build", [labelme_grid, via_grid, qupath_grid])
@pytest.mark.parametrize(
    ("places", "factor"),
    [
        (GRID, 1),
        (GRID[:4], 2),  # few shapes
        ([(x, y + 30) for x, y in GRID], 2),  # below the middle
        ([(x + 20, y + 18) for x, y in GRID], 2),  # in the middle
    ],
)
def test_images_whose_labels_lie_as_they_may_are_not_asked_about(tmp_path, build, places, factor):
    root = tmp_path / "set"
    build(root, places)
    resize(root, (H * factor, W * factor))
    assert pairing.read_set(root).warnings == ()


@pytest.mark.parametrize("form", ["JSON", "CSV"])
def test_files_of_another_size_than_via_states_are_asked_about(tmp_path, form):
    root = tmp_path / "set"
    (via if form == "JSON" else lambda: via_csv)()(root)
    if form == "CSV":
        rows = list(csv.DictReader((root / "via.csv").read_text().splitlines()))
        out = io.StringIO()
        table = csv.DictWriter(out, ["file_size", *rows[0]])
        table.writeheader()
        for row in rows:
            size = (root / "images" / row["filename"]).stat().st_size
            table.writerow({"file_size": size, **row})
        write(root / "via.csv", out.getvalue())
    assert pairing.read_set(root).warnings == ()
    old = (root / "images/im2.png").stat().st_size
    Image.open(root / "images/im2.png").transpose(Image.Transpose.ROTATE_180).save(
        root / "images/im2.png"
    )
    new = (root / "images/im2.png").stat().st_size
    assert pairing.read_set(root).warnings == (
        f"1 of 4 image files changed after labelling, such as im2.png, from {old:,} to {new:,} "
        "bytes: were the images resized or turned? Then put those there that were labelled",
    )


# --- pixels that QuPath leaves out -------------------------------------------------------------


def test_regions_to_be_ignored_in_qupath_are_of_no_class(tmp_path):
    qupath()(tmp_path)
    for file in tmp_path.glob("*.geojson"):
        write(file, file.read_text().replace('"debris"', '"Ignore*"'))
    found = inspect_folder(tmp_path)
    assert found.table.names == ("background", "cell")
    for k, pair in enumerate(pairing.find_pairs(tmp_path)):
        due = np.array([0, 1, 255])[truth(k)]
        np.testing.assert_array_equal(pair.labels(found.table), due)


# --- boxes instead of outlines -----------------------------------------------------------------


def boxes_of(tool):
    """Return a build of nine boxes an image, as a tool writes them."""

    def build(root):
        for k in range(COUNT):
            boxed = [(x, y + k, x + 12, y + 10 + k) for x, y in GRID]
            if tool == "YOLO":
                lines = [
                    "0 " + " ".join(f"{x / W:.6f} {y / H:.6f}" for x, y in corners(box, 0))
                    for box in boxed
                ]
                write(root / f"labels/im{k}.txt", "\n".join(lines))
            elif tool == "LabelMe":
                found = [
                    {"label": "cell", "points": [box[:2], box[2:]], "shape_type": "rectangle"}
                    for box in boxed
                ]
                write(root / f"images/im{k}.json", {"imagePath": f"im{k}.png", "shapes": found})
            elif tool == "Supervisely":
                found = [
                    {
                        "classTitle": "cell",
                        "geometryType": "polygon" if place else "rectangle",
                        "points": {
                            "exterior": corners(box, 0) if place else [box[:2], box[2:]],
                            "interior": [],
                        },
                    }
                    for place, box in enumerate(boxed)
                ]
                write(root / f"ann/im{k}.png.json", {"objects": found})
            else:
                found = [
                    {
                        "type": "Feature",
                        "geometry": {
                            "type": "Polygon",
                            "coordinates": [[*corners(box, 0), corners(box, 0)[0]]],
                        },
                        "properties": {"classification": {"name": "cell"}},
                    }
                    for box in boxed
                ]
                write(root / f"im{k}.geojson", found)
        pictures(root, "img" if tool == "Supervisely" else "images")
        if tool == "YOLO":
            write(root / "data.yaml", "names: [cell]")

    return build


@pytest.mark.parametrize("tool", ["YOLO", "LabelMe", "QuPath", "Supervisely"])
def test_shapes_that_are_all_rectangles_are_asked_about(tmp_path, tool):
    boxes_of(tool)(tmp_path)
    assert pairing.read_set(tmp_path).warnings == (
        "all 36 shapes are rectangles: outlines, or boxes around objects? Boxes cover pixels "
        "beside the objects, too; then draw outlines",
    )


def test_one_outline_among_rectangles_tells_that_they_are_no_boxes(tmp_path):
    boxes_of("YOLO")(tmp_path)
    file = tmp_path / "labels/im0.txt"
    write(file, file.read_text() + "\n0 0.1 0.1 0.3 0.1 0.2 0.3 0.1 0.2\n")
    assert pairing.read_set(tmp_path).warnings == ()


# --- two lists of classes ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "toml", "due"),
    [
        (
            roboflow_masks,
            {"value": (0, 1, 2)},
            "_classes.csv calls a class 'cell', and classes.toml calls it 'debris', which counts",
        ),
        (
            cvat(),
            {"colour": ("#000000", "#fa3253", "#34d1b7")},
            "labelmap.txt calls a class 'cell', and classes.toml calls it 'debris', which counts",
        ),
    ],
)
def test_a_list_of_classes_that_contradicts_another_is_said(tmp_path, build, toml, due):
    build(tmp_path / "set")
    ((key, values),) = toml.items()

    def listed(*names):
        found = zip(names, values, strict=True)
        text = "".join(f"[[class]]\nname = {name!r}\n{key} = {one!r}\n" for name, one in found)
        write(tmp_path / "set/classes.toml", text)

    listed("Background", "cell", "debris")
    assert pairing.read_set(tmp_path / "set").warnings == ()
    listed("background", "debris", "cell")
    found = inspect_folder(tmp_path / "set").findings
    assert [(f.severity, f.problem) for f in found if "which counts" in f.problem] == [
        ("warning", due)
    ]
    with pytest.warns(UnetsegWarning) as warned:
        convert_folder(tmp_path / "set", tmp_path / "out")
    assert [str(w.message) for w in warned] == [f"{tmp_path / 'set'}: {due}"]
    given = tmp_path / "set/classes.toml"
    assert pairing.read_set(tmp_path / "set", given).warnings == ()
