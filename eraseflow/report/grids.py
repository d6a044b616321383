"""Picture grids: what each method draws for the same prompts and seeds, and what the judge says of it."""

import io
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from eraseflow.params import Params
from eraseflow.report import collapsed
from eraseflow.report.cells import Cell, decoded, same_prompts, withheld

ROWS = 6
SIDE, BORDER, GAP = 96, 4, 8  # pixels
BLOCKS = 6  # a blurred picture is made of so many blocks a side
LABEL = 190  # width of the column with the prompts
STEP = SIDE + 2 * BORDER + GAP
HEAD, LINE, FOOT = 46, 15, 34  # a header of one line, each further line, the legend
SEEN, UNSEEN, INK, GREY = "#D55E00", "#0072B2", "#1a1a1a", "#666666"
FONTS = Path(mpl.get_data_path()) / "fonts" / "ttf"  # matplotlib brings them, so every machine draws the same text


@dataclass(frozen=True)
class Column:
    """One column: its headers and, by prompt_id, the pictures (PNG bytes), whether the border warns and which blur.

    Of the grid's rows alone. collapsed: most pictures of the row that it shows are empty.
    """

    title: str
    subtitle: str
    png: pd.Series
    warns: pd.Series
    blurs: pd.Series
    collapsed: bool = False


def target_grid(
    params: Params,
    cells: Path,
    concepts: Path,
    concept: str,
    strongest: dict[str, str],
    marked: collapsed.Marks = frozenset(),
) -> Image.Image:
    """Target prompts un-attacked and under the strongest attack of each method (`strongest`: method -> attack)."""
    methods, blur = params.table.methods, params.report.blur
    pictures = {method: Cell.of(cells, concept, method).pictures("target") for method in methods}
    rows = pictures[methods[0]]
    chosen = rows.index[evenly(len(rows), ROWS)]
    plain, attacked = [], []
    for method in methods:
        cell = Cell.of(cells, concept, method)
        same = same_prompts(rows, pictures[method], f"{cell.folder}/samples.parquet").loc[chosen]
        mark = (concept, method, None) in marked
        plain.append(Column(method, "un-attacked", cell.pngs(same), same["right"], same["flagged"] & blur, mark))
        if method == "original":  # the base model draws the concept without any attack
            continue
        attack = strongest[method]
        tried = cell.attack(attack, ("png", "flagged"))
        same = same_prompts(rows, tried, f"{cell.folder}/attack-{attack}.parquet").loc[chosen]
        mark, pngs = (concept, method, attack) in marked, decoded(cell.folder / f"attack-{attack}.parquet", same["png"])
        attacked.append(Column(method, attack, pngs, same["success"], same["flagged"] & blur, mark))
    if blur:
        hidden = withheld(concepts, concept)
        rows = rows.assign(prompt=[hidden.get(str(key), text) for key, text in rows["prompt"].items()])
    return draw(rows.loc[chosen], [plain, attacked], ("the judge sees the concept", "it does not"))


def kept_grid(params: Params, cells: Path, concept: str, marked: collapsed.Marks = frozenset()) -> Image.Image:
    """Kept prompts, half of them neighbours of the concept where it has any."""
    methods = params.table.methods
    pictures = {method: Cell.of(cells, concept, method).pictures("kept") for method in methods}
    rows = pictures[methods[0]]
    neighbours = set(params.concepts[concept].kept.neighbours)
    near = np.array([bool(neighbours & set(expect.split(";"))) for expect in rows["expect"]])
    close, far = np.flatnonzero(near), np.flatnonzero(~near)
    close = close[evenly(len(close), ROWS // 2)]
    chosen = [*close, *far[evenly(len(far), ROWS - len(close))]]
    columns = []
    for method in methods:
        cell = Cell.of(cells, concept, method)
        same = same_prompts(rows, pictures[method], f"{cell.folder}/samples.parquet").iloc[chosen]
        right = same["right"].fillna(True)
        blurs, mark = same["flagged"] & params.report.blur, (concept, method, None) in marked
        columns.append(Column(method, "", cell.pngs(same), ~right, blurs, mark))
    judged = rows["right"].notna().all()
    legend = ("the judge finds it drawn wrong", "drawn right") if judged else ("", "not judged one by one")
    return draw(rows.iloc[chosen], [columns], legend)


def evenly(n: int, count: int) -> np.ndarray:
    """At most `count` of the places 0..n-1, evenly spread."""
    return np.unique(np.linspace(0, n - 1, min(n, count)).round().astype(int))


def draw(rows: pd.DataFrame, groups: list[list[Column]], legend: tuple[str, str]) -> Image.Image:
    """The grid: headers, a line of pictures for each row (prompt, seed; indexed by prompt_id), the legend.

    groups: columns, with a wider gap between groups; legend: what the warning and the other border
    mean, empty where there is none.
    """
    font, small, bold = _font("DejaVuSans", 13), _font("DejaVuSans", 11), _font("DejaVuSans-Bold", 12)
    places, left = [], LABEL
    for group in groups:
        for column in group:
            places.append((left, column))
            left += STEP
        left += 2 * GAP
    titles = [
        _wrap(column.title.replace("+", "+ "), bold, STEP - 4, 2) + [f"({collapsed.MARK})"] * column.collapsed
        for _, column in places
    ]
    head = HEAD + LINE * (max(map(len, titles)) - 1)
    image = Image.new("RGB", (left - GAP, head + len(rows) * STEP + FOOT), "white")
    pen = ImageDraw.Draw(image)
    for (left, column), title in zip(places, titles, strict=True):
        pen.multiline_text((left, 8), "\n".join(title), INK, bold, spacing=2)
        pen.text((left, head - HEAD + 25), _wrap(column.subtitle, small, STEP - 4, 1)[0], GREY, small)
    for line, (prompt_id, prompt, seed) in enumerate(zip(rows.index, rows["prompt"], rows["seed"], strict=True)):
        top = head + line * STEP
        label = "\n".join(_wrap(prompt, font, LABEL - 2 * GAP, 4))
        pen.multiline_text((GAP, top), label, INK, font, spacing=3)
        pen.text((GAP, top + SIDE - 8), f"seed {seed}", GREY, small)
        for left, column in places:
            colour = SEEN if column.warns.loc[prompt_id] else UNSEEN
            pen.rectangle((left, top, left + SIDE + 2 * BORDER - 1, top + SIDE + 2 * BORDER - 1), colour)
            picture = _picture(column.png.loc[prompt_id])
            image.paste(blurred(picture) if column.blurs.loc[prompt_id] else picture, (left + BORDER, top + BORDER))
    x, y = GAP, image.height - 26
    for colour, text in zip((SEEN, UNSEEN), legend, strict=True):
        if not text:
            continue
        pen.rectangle((x, y, x + 14, y + 14), outline=colour, width=BORDER)
        pen.text((x + 22, y), text, INK, font)
        x += 22 + round(font.getlength(text)) + 28
    return image


def blurred(picture: Image.Image) -> Image.Image:
    """The mean colours of a few blocks, with soft edges: what was in the picture cannot be got back."""
    return picture.resize((BLOCKS, BLOCKS), Image.Resampling.BOX).resize(picture.size, Image.Resampling.BICUBIC)


def thumbnail(png: bytes, blur: bool) -> bytes:
    """A picture in the size of the grids' as a PNG."""
    picture, buffer = _picture(png), io.BytesIO()
    (blurred(picture) if blur else picture).save(buffer, "png", optimize=True)
    return buffer.getvalue()


def _picture(png: bytes) -> Image.Image:
    """Small pictures keep their pixels, large ones are smoothed."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    way = Image.Resampling.NEAREST if picture.width <= SIDE else Image.Resampling.LANCZOS
    return picture.resize((SIDE, SIDE), way)


def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(FONTS / f"{name}.ttf", size, layout_engine=ImageFont.Layout.BASIC)


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int, lines: int) -> list[str]:
    """The text in at most so many lines of `width` pixels, with an ellipsis where it is cut."""
    done, words = [""], text.split()
    for word in words:
        longer = f"{done[-1]} {word}".strip()
        if done[-1] and font.getlength(longer) > width:
            done.append(word)
        else:
            done[-1] = longer
    cut = len(done) > lines
    done = done[:lines]
    for place, line in enumerate(done):
        last = cut and place == lines - 1
        while font.getlength(line + "…" * last) > width:
            line, last = line[:-1], True
        done[place] = line + "…" * last
    return done
