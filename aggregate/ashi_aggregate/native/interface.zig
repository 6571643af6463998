//! What `ashi_fold` is given and what it gives, as it lies in memory: `ashi_aggregate.native.kernel` has the same.

const Record = @import("trade.zig").Record;
const Slot = @import("ids.zig").Slot;
const Symbol = @import("scan.zig").Symbol;

/// The number of all that is said here and in `kernel.py`, to be raised with any change of it: a library that was built
/// from other sources must not be called.
export fn ashi_interface() u32 {
    return 4;
}

/// What `ashi_fold` is to do with a symbol.
pub const Mode = enum(u32) {
    /// Nothing: Python does.
    leave = 0,
    /// Count ids that are numbers, each greater than all before it.
    ascending = 1,
    /// Count ids that are numbers in any order, held against the intervals that are known.
    intervals = 2,
    /// Python has counted the ids: `admitted` says of each record what it is.
    given = 3,
    /// Count all, whose ids are texts, if none is late: whether one of them came before Python finds out afterwards.
    texts = 4,
};

pub const Verdict = enum(u32) {
    left = 0,
    folded = 1,
    /// Every record had been seen.
    seen = 2,
    /// Records of it are left to Python.
    slow = 3,
    /// Ids that the mode cannot count.
    ids = 4,
    /// More ids than may be kept, or than there is room for.
    room = 5,
    /// A sum needs more than 128 bits.
    overflow = 6,
    /// Two trades that nothing ranks, which ids have not shown to be one.
    tie = 7,
    /// As `ids`, and one of them is no number.
    texts = 8,
};

/// What is known of a symbol before; times in µs.
pub const Known = extern struct {
    applied_offset: i64,
    stream_time: i64,
    dropped_until: i64,
    /// -1 where no id has been counted.
    greatest_id: i64,
    /// So many more ids may be kept.
    id_room: u32,
    mode: u32,
    /// Of mode `intervals`: which of `windows` are its own.
    windows_at: u32,
    windows_len: u32,
};

/// The ids of one finest window: intervals in `numbers`, as pairs of start and end (exclusive), ascending.
pub const Window = extern struct {
    start: i64,
    at: u32,
    len: u32,
};

pub const Part = extern struct {
    volume: u128,
    quote: u128,
    buy_volume: u128,
    buy_quote: u128,
    open_time: i64,
    last_offset: i64,
    count: u32,
    /// Records: the first and the last by rank, those of the highest and the lowest price.
    first: u32,
    last: u32,
    high: u32,
    low: u32,
    /// Of the chain of its ids in `numbers_out`: where it begins, how many links it has, the last of them.
    ids_at: u32,
    ids_len: u32,
    last_run: u32,
    volume_scale: u8,
    quote_scale: u8,
    buy_volume_scale: u8,
    buy_quote_scale: u8,
    texts_weigh: u32,
    reserved: u32,
};

pub const Late = extern struct {
    stream_time: i64,
    record: u32,
    /// 1: beyond the horizon. 2: its window was dropped.
    reason: u32,
};

pub const Folding = extern struct {
    records: [*]const Record,
    symbols: [*]const Symbol,
    /// As `ashi_scan` gives it, of all symbols.
    order: [*]const u32,
    known: [*]const Known,
    windows: [*]const Window,
    numbers: [*]const u64,
    /// By record, of mode `given`: 0 a copy, 1 counts, 2 is late.
    admitted: [*]const u8,
    /// Of the timeframes beyond the finest, µs.
    lengths: [*]const i64,
    /// Room for what is made of one symbol.
    parts: [*]Part,
    late: [*]Late,
    numbers_out: [*]u64,
    /// Room for the ids of a symbol in mode `intervals`: as many as finest windows its trades span, the known ones too.
    slots: [*]Slot,
    /// What `ashi_scan` has read.
    data: [*]const u8,
    message: [*]u8,
    finest_us: i64,
    horizon_us: i64,
    copies_apart_us: i64,
    records_len: u32,
    order_len: u32,
    symbols_len: u32,
    windows_len: u32,
    numbers_len: u32,
    data_len: u32,
    slots_len: u32,
    lengths_len: u32,
    max_parts: u32,
    max_late: u32,
    max_numbers: u32,
    message_len: u32,
};
