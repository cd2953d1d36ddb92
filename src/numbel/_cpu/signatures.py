"""What each kernel is given: its class of parameters (`parameters`), by the module of the kernel."""

from __future__ import annotations

from typing import NamedTuple

from .parameters import Array, Limits, Results, Rows, Split, Stream, Temperatures, Word

#: Columns of rows that are sampled, truncated, or drawn from without replacement across rows.
SHORT, SHORT_CHOICE = 256, 128
#: Columns of a row whose noise is made at a time.
TILE = 4096
#: Numbers of an accumulator's winner. float64: key, r (of the race: 0), logit. int64: block (of the race: place),
#: column.
REALS, INTEGERS = 3, 2
#: int64 at the head of an alias table's plan, and of each of its blocks (`table`).
HEAD, FIELDS = 8, 6

# ---------------------------------------------------------------------------------------------------------------- noise


class Noise(NamedTuple):
    """What is filled with noise."""

    stream: Stream
    loc: float
    scale: float
    out: Rows
    nontemporal: int  # whether results go past the caches, which they would only flush
    width: int  # rows of a tile; 0: an item is TILE columns of a row


class Spawn(NamedTuple):
    """Where seeds of child generators go."""

    seeds: Array  # int64
    children: int
    seed: Word
    draw: Word


# ---------------------------------------------------------------------------------------------------------- categorical


class Found(NamedTuple):
    """What the segments of a row leave for its last one: None where a row is one segment."""

    r: Array | None  # float64, one a segment
    s: Array | None  # float64, one a segment; NaN if it is bad
    keys: Array | None  # float64, one a segment and sample
    winner_r: Array | None  # float64, one a segment and sample
    winners: Array | None  # int64, one a segment and sample


class Sampling(NamedTuple):
    """What is sampled, and where the results go."""

    stream: Stream
    temperatures: Temperatures
    row_mask: Array | None
    results: Results
    logits: Rows
    split: Split
    found: Found


# ---------------------------------------------------------------------------------------------------------------- short


class ShortSampling(NamedTuple):
    """What is sampled, many short rows at a time, and where the results go."""

    stream: Stream
    temperatures: Temperatures
    row_mask: Array | None
    results: Results
    logits: Rows
    width: int  # rows of a tile


class ShortTruncatedSampling(NamedTuple):
    """The same with limits."""

    stream: Stream
    temperatures: Temperatures
    row_mask: Array | None
    results: Results
    logits: Rows
    limits: Limits
    width: int


# ------------------------------------------------------------------------------------------------------------ truncated


class TruncatedSampling(NamedTuple):
    """What is truncated and sampled, and where the results go."""

    stream: Stream
    temperatures: Temperatures
    row_mask: Array | None
    results: Results
    logits: Rows
    limits: Limits
    race: int  # whether the draw is the argmax of the noise
    chunk_size: int  # rows taken at a time


# --------------------------------------------------------------------------------------------------------------- ragged


class Gathering(NamedTuple):
    """Which rows are copied side by side."""

    logits: Rows  # all of them, one behind the other: a single row
    offsets: Array  # int64, where each begins in it, and the last ends
    chosen: Array  # int64, the rows
    out: Rows
    chunk_size: int


class RaggedSampling(NamedTuple):
    """What is sampled of ragged rows, in segments."""

    sampling: Sampling  # `logits` is all of them, a single row; `found` has an entry for each item
    offsets: Array  # int64, where each begins in it, and the last ends
    chosen: Array  # int64, the rows
    item_rows: Array  # int64, the place in `chosen` of each item's row
    first_items: Array  # int64, the first item of each of these rows


# ----------------------------------------------------------------------------------------------------------- accumulate


class Winners(NamedTuple):
    """Winners of samples."""

    reals: Array  # float64, REALS each
    integers: Array  # int64, INTEGERS each


class Piece(NamedTuple):
    """Whole blocks that are added to rows."""

    logits: Rows
    stream: Stream
    temperatures: Temperatures
    row_mask: Array | None
    samples: int
    race: int  # whether the winner is the argmax of the noise
    split: Split
    first_block: int  # of the piece
    ranges: int  # blocks that are nodes of the row's tree, from left to right
    plan: Array  # int64, first block in the piece and level of each range
    nodes: Array  # float64, (r, S) of each block of each row
    found: Array  # float64, (r, S) of each range of each row
    winners: Winners  # of each segment and sample
    best: Winners  # of each row and sample, so far


class Merging(NamedTuple):
    """Winners that are taken where they go before the best."""

    pairs: int
    race: int
    winners: Winners
    best: Winners


class Joining(NamedTuple):
    """Nodes (r, S) of rows, float64, joined in place with their right siblings."""

    rows: int
    left: Array
    right: Array


class Finishing(NamedTuple):
    """Rows whose columns have all come, and where the results go."""

    rows: int
    temperatures: Temperatures
    row_mask: Array | None
    roots: Array  # float64, (r, S) of each row
    best: Winners
    results: Results
    chunk_size: int  # rows taken at a time


# ---------------------------------------------------------------------------------------------------------------- table


class Table(NamedTuple):
    """A table in the making: addresses of arrays of int64, in a kernel."""

    columns: int
    masses: Array  # one a column
    plan: Array  # the head, and FIELDS numbers a block
    entries: Array  # one a column


class Weighing(NamedTuple):
    """A row whose columns get their masses; the plan gets what blocks hold."""

    logits: Rows
    temperatures: Temperatures
    roots: Array  # float64, (r, S) of each row
    table: Table


class Heading(NamedTuple):
    """Between two steps: what is known of all blocks."""

    table: Table
    phase: int  # 0: all are weighed; 1: all are classified


class Splitting(NamedTuple):
    """The masses are split into entries."""

    table: Table
    phase: int  # 0: an item is a block to classify; 1: one of `pieces` parts to fill
    pieces: int


class Drawing(NamedTuple):
    """Draws from a table."""

    columns: int
    plan: Array  # its head is read
    entries: Array
    stream: Stream  # of one row
    indices: Array  # int64
    samples: int
    chunk_size: int  # draws of an item


class TablesOfRows(NamedTuple):
    """Rows whose tables are made, drawn from and forgotten."""

    logits: Rows
    temperatures: Temperatures
    roots: Array  # float64, (r, S) of each row
    chosen: Array  # int64, the rows
    stream: Stream
    results: Results


# ---------------------------------------------------------------------------------------------------------- multinomial


class Counting(NamedTuple):
    """Rows, how many draws of each are counted, and where the counts go.

    Phase 0 weighs blocks, and splits a row over them once its last segment is weighed; phase 1 does the rest. A lone
    segment does both at once. What is kept of a block is its mass and its count.
    """

    stream: Stream
    temperatures: Temperatures
    trials: Array  # int64, one a row
    argmaxes: Array  # int64, one a row: where all go that have no law; -1 for none
    roots: Array  # float64, (r, S) of each row; S is NaN where there is no law
    logits: Rows
    counts: Rows  # int64
    split: Split
    blocks: Blocks


# -------------------------------------------------------------------------------------------------------------- relaxed


class Blocks(NamedTuple):
    """What is kept of the blocks of long rows between two visits."""

    nodes: Array | None  # float64, three a block of each row; None where a row is one segment
    first_row: int  # of this pass: rows before it have none
    phase: int  # which of two visits this is


class Relaxing(NamedTuple):
    """What is relaxed, and where the results go."""

    stream: Stream
    temperatures: Temperatures
    row_mask: Array | None
    logits: Rows
    out: Rows
    noise: int  # whether there is any
    split: Split
    blocks: Blocks
    max_cached_columns: int  # of a row whose weights a worker may keep
    nontemporal: int  # whether results go past the caches


# -------------------------------------------------------------------------------------------------------- relaxed_short


class ShortRelaxing(NamedTuple):
    """What is relaxed, many short rows at a time, and where the results go."""

    stream: Stream
    temperatures: Temperatures
    row_mask: Array | None
    logits: Rows
    out: Rows
    noise: int  # whether there is any
    width: int  # rows of a tile


# ---------------------------------------------------------------------------------------------------------- conditional


class Condition(NamedTuple):
    """What each row is conditioned on."""

    category: Array  # int64, the category whose perturbed logit is the largest
    logsumexp: Array  # float64


class Conditional(NamedTuple):
    """What is perturbed, and where the results go."""

    logits: Rows
    out: Rows
    stream: Stream
    temperatures: Temperatures
    row_mask: Array | None
    condition: Condition
    split: Split
    nontemporal: int  # whether results go past the caches


class ShortConditional(NamedTuple):
    """The same, many short rows at a time."""

    logits: Rows
    out: Rows
    stream: Stream
    temperatures: Temperatures
    row_mask: Array | None
    condition: Condition
    width: int  # rows of a tile


# ------------------------------------------------------------------------------------------------------------------ vjp


class Vjp(NamedTuple):
    """Relaxed samples and their cotangents, and where the gradients go."""

    temperatures: Temperatures
    in_temperature: Array | None  # float64, the derivative in each row's temperature
    y: Rows
    cotangent: Rows
    out: Rows
    split: Split
    blocks: Blocks
    nontemporal: int  # whether results go past the caches


class ShortVjp(NamedTuple):
    """The same, many short rows at a time."""

    temperatures: Temperatures
    in_temperature: Array | None
    y: Rows
    cotangent: Rows
    out: Rows
    width: int  # rows of a tile


# ------------------------------------------------------------------------------------------------------------ densities


class GivenLogProb(NamedTuple):
    """Which categories are looked up, and where the results go."""

    temperatures: Temperatures
    given: Array  # int64, `samples` of each row
    argmaxes: Array  # int64, of each row: it has all the probability of a row of temperature 0
    roots: Array  # float64, (r, S) of each row
    log_prob: Array  # result dtype, one a given category
    samples: int
    logits: Rows
    chunk_size: int  # of all categories, an item


# -------------------------------------------------------------------------------------------------------------- entropy


class Entropies(NamedTuple):
    """Rows, and where their entropies go."""

    temperatures: Temperatures
    row_mask: Array | None
    out: Array  # result dtype, one a row
    logits: Rows
    split: Split
    nodes: Array | None  # float64, three a segment; None where a row is one segment


class ShortEntropies(NamedTuple):
    """The same, many short rows at a time."""

    temperatures: Temperatures
    row_mask: Array | None
    out: Array
    logits: Rows
    width: int  # rows of a tile


# ---------------------------------------------------------------------------------------------------------------- top_k


class Lists(NamedTuple):
    """What the segments of a row leave for its last one: None where a row is one segment."""

    keys: Array | None  # float64, a list for each segment
    places: Array | None  # int64, the same
    lengths: Array | None  # int64, one a segment; -1 if it is bad
    limits: Array | None  # ordered int64, one a row: a bound of the threshold, which its segments share
    nodes: Array | None  # float64, r of each block of a row, then S of each
    first_row: int  # of this pass: rows before it have none


class TopKResults(NamedTuple):
    """Contiguous outputs."""

    indices: Array  # int64, k a row
    perturbed: Array  # float64, k a row
    log_prob: Array  # result dtype, one a row
    threshold: Array  # float64, one a row


class Choosing(NamedTuple):
    """What is sampled without replacement, and where the results go."""

    stream: Stream
    temperatures: Temperatures
    row_mask: Array | None
    k: int
    results: TopKResults
    logits: Rows
    split: Split
    keeps_nodes: int  # whether blocks' nodes are kept, for the sum of what is left
    lists: Lists


class Weighting(NamedTuple):
    """Chosen logits, which become inclusion weights."""

    chosen: Rows  # float64
    temperatures: Temperatures
    threshold: Array  # float64, one a row
    logsumexp: Array | None  # float64, one a row
    normalized: int  # whether weights are to sum to 1
    chunk_size: int  # rows taken at a time


# ---------------------------------------------------------------------------------------------------------- top_k_short


class ShortChoosing(NamedTuple):
    """What is sampled without replacement, many short rows at a time, and where the results go."""

    stream: Stream
    temperatures: Temperatures
    row_mask: Array | None
    k: int
    results: TopKResults
    logits: Rows
    width: int  # rows of a tile
