//! Trades of one symbol from columns, as Arrow lays them out in memory (https://arrow.apache.org/docs/format/Columnar.html).
//!
//! A trade is read only if it is written as Ashi's sinks write it; what is not is counted, and all of it is Python's then.

const std = @import("std");
const batches = @import("batches.zig");
const trade = @import("trade.zig");

pub const Row = extern struct {
    offset: i64,
    traded_at: i64,
    received_at: i64,
    sequence: i64,
    /// The id as a number where `id_is_number`, as in `trade.Record`.
    id: u64,
    price: u64,
    size: u64,
    /// The row before it that has the same id, while copies are looked for.
    before: u32,
    partition: u32,
    id_at: u32,
    id_len: u8,
    id_is_number: u8,
    /// 0 none, 1 buy, 2 sell.
    side: u8,
    price_scale: u8,
    size_scale: u8,
    is_copy: u8,
    reserved: [6]u8,
};

/// A text of up to 12 bytes, or where it stands: Arrow's "view".
const View = extern struct {
    len: i32,
    bytes: [12]u8,
};

/// A column of texts as views.
const Texts = extern struct {
    views: [*]const View,
    buffers: [*]const ?[*]const u8,
    lengths: [*]const i64,
    buffers_len: u32,
    reserved: u32,

    fn get(self: *const Texts, number: usize) ?[]const u8 {
        const view = &self.views[number];
        if (view.len < 0) return null;
        const len: usize = @intCast(view.len);
        if (len <= view.bytes.len) return view.bytes[0..len];
        const index = std.mem.readInt(u32, view.bytes[4..8], .little);
        const at: usize = std.mem.readInt(u32, view.bytes[8..12], .little);
        if (index >= self.buffers_len or self.lengths[index] < 0) return null;
        if (at + len > @as(u64, @intCast(self.lengths[index]))) return null;
        const buffer = self.buffers[index] orelse return null;
        return buffer[at..][0..len];
    }
};

const Columns = extern struct {
    partition: [*]const i64,
    offset: [*]const i64,
    traded_at: [*]const i64,
    received_at: [*]const i64,
    sequence: [*]const i64,
    trade_id: Texts,
    price: Texts,
    size: Texts,
    side: Texts,
    /// A bit for each side, from bit `side_valid_at` on, whether there is one; null where there always is.
    side_valid: ?[*]const u8,
    side_valid_at: u32,
    count: u32,
};

const Taken = extern struct {
    rows: u32,
    text: u32,
    slow: u32,
    reserved: u32,
};

/// Puts the trades of columns behind those that are `taken`, and their ids into `text`.
export fn ashi_rows(
    columns: *const Columns,
    rows: [*]Row,
    max_rows: u32,
    text: [*]u8,
    max_text: u32,
    taken: *Taken,
) i32 {
    var number: usize = 0;
    while (number < columns.count) : (number += 1) {
        if (taken.rows >= max_rows or max_text - taken.text < trade.MAX_ID_LENGTH) {
            return @backingInt(batches.Failure.no_room);
        }
        const out = &rows[taken.rows];
        out.* = std.mem.zeroes(Row);
        taken.rows += 1;
        if (!read(columns, number, out)) {
            taken.slow += 1;
            continue;
        }
        const id = columns.trade_id.get(number).?;
        out.id_at = taken.text;
        @memcpy(text[taken.text..][0..id.len], id);
        taken.text += @intCast(id.len);
    }
    return @backingInt(batches.Failure.none);
}

/// Whether it is a trade as Ashi writes it.
fn read(columns: *const Columns, number: usize, out: *Row) bool {
    const partition = columns.partition[number];
    if (partition < 0 or partition > std.math.maxInt(u32)) return false;
    out.partition = @intCast(partition);
    out.offset = columns.offset[number];
    out.traded_at = columns.traded_at[number];
    out.received_at = columns.received_at[number];
    out.sequence = columns.sequence[number];
    if (out.offset < 0 or out.sequence < 0) return false;
    for ([_]i64{ out.traded_at, out.received_at }) |time| {
        if (time < trade.EARLIEST_US or time > trade.LATEST_US) return false;
    }
    if (!readId(columns.trade_id.get(number) orelse return false, out)) return false;
    const price = amountOf(columns.price.get(number) orelse return false) orelse return false;
    const size = amountOf(columns.size.get(number) orelse return false) orelse return false;
    out.price = price.value;
    out.price_scale = price.scale;
    out.size = size.value;
    out.size_scale = size.scale;
    const bit = number + columns.side_valid_at;
    if (columns.side_valid) |valid| {
        if (valid[bit / 8] >> @intCast(bit % 8) & 1 == 0) return true;
    }
    const side = columns.side.get(number) orelse return false;
    out.side = if (std.mem.eql(u8, side, "buy")) 1 else if (std.mem.eql(u8, side, "sell")) 2 else return false;
    return true;
}

fn readId(id: []const u8, out: *Row) bool {
    if (id.len == 0 or id.len > trade.MAX_ID_LENGTH) return false;
    out.id_len = @intCast(id.len);
    var value: u64 = 0;
    var is_number = id.len <= trade.MAX_DIGITS and (id.len == 1 or id[0] != '0');
    for (id) |char| {
        if (char < 0x21 or char > 0x7e) return false;
        const digit = char -% '0';
        if (digit > 9) is_number = false;
        if (is_number) value = value * 10 + digit;
    }
    out.id = if (is_number) value else 0;
    out.id_is_number = @intFromBool(is_number);
    return true;
}

fn amountOf(bytes: []const u8) ?trade.Amount {
    var text = trade.Text{ .bytes = bytes };
    const amount = trade.amount(&text) orelse return null;
    return if (text.at == bytes.len) amount else null;
}
