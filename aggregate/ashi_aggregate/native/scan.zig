//! What fetched batches hold, by symbol: one `Record` for each record and one `Symbol` for each key.

const std = @import("std");
const batches = @import("batches.zig");
const trade = @import("trade.zig");
const Record = trade.Record;

pub const Symbol = extern struct {
    key_at: u32,
    key_len: u32,
    first: u32,
    last: u32,
    count: u32,
    /// How many of its records are left to Python.
    slow: u32,
    /// Where its records begin in the order that `ashi_scan` gives.
    order_at: u32,
};

pub const Scan = extern struct {
    records: u32,
    symbols: u32,
    slow: u32,
    reserved: u32,
};

const SCHEMA_NAME = "schema";
const SCHEMA = "ashi.trade.v1";
const COPY_NAME = "ashi.copy";

/// Reads what fetched batches hold, from the record of offset `begin` on.
///
/// `table`: `table_size` places, as `batches.KeyTable` wants them; `seed` is that of its hashes. In the end there stands
/// in it which records each symbol has, one symbol behind the other: who adds them up knows then what comes next.
export fn ashi_scan(
    data: [*]const u8,
    data_len: u32,
    begin: i64,
    records: [*]Record,
    max_records: u32,
    symbols: [*]Symbol,
    max_symbols: u32,
    table: [*]u32,
    table_size: u32,
    seed: u64,
    result: *Scan,
) i32 {
    const bytes = data[0..data_len];
    var scanner = Scanner{
        .records = records[0..max_records],
        .symbols = .{ .bytes = bytes, .entries = symbols[0..max_symbols], .table = table[0..table_size], .seed = seed },
    };
    batches.walk(bytes, begin, &scanner) catch |failed| return batches.failureOf(failed);
    scanner.sort(table[0..table_size]);
    result.* = .{
        .records = scanner.count,
        .symbols = scanner.symbols.count,
        .slow = scanner.slow,
        .reserved = 0,
    };
    return @backingInt(batches.Failure.none);
}

const Scanner = struct {
    records: []Record,
    symbols: batches.KeyTable(Symbol),
    count: u32 = 0,
    slow: u32 = 0,

    pub fn record(self: *Scanner, reader: *batches.Reader, at: usize, offset: i64, timestamp: i64, appended: bool) batches.Failed!void {
        if (self.count >= self.records.len) return error.NoRoom;
        const place = self.count;
        const out = &self.records[place];
        out.* = std.mem.zeroes(Record);
        out.offset = offset;
        out.timestamp = timestamp;
        out.timestamp_type = @intFromBool(appended);
        out.at = @intCast(at);
        out.symbol = batches.NO_KEY;
        out.next = trade.NO_RECORD;

        var slow = trade.Slow.none;
        const key_len = try reader.length();
        const key = try reader.take(key_len orelse 0);
        const key_at = reader.at - key.len;
        const value_len = try reader.length();
        const value = try reader.take(value_len orelse 0);
        out.value_at = @intCast(reader.at - value.len);
        out.value_len = @intCast(value.len);
        const header_count = try reader.varint();
        if (header_count < 0) return error.Malformed;
        if (header_count > 0) slow = try headers(reader, header_count, out);
        if (reader.left() != 0) return error.Malformed;
        if (key_len == null) slow = .no_key;
        if (slow == .none and value_len == null) slow = .no_value;
        if (slow == .none) slow = trade.parse(value, key, out);
        self.count += 1;
        out.slow = @backingInt(slow);
        if (slow != .none) self.slow += 1;
        if (key_len != null and key.len > 0) try self.file(place, key, key_at, slow != .none);
    }

    fn sort(self: *Scanner, order: []u32) void {
        const symbols = self.symbols.entries[0..self.symbols.count];
        var at: u32 = 0;
        for (symbols) |*symbol| {
            symbol.order_at = at;
            at += symbol.count;
        }
        for (self.records[0..self.count], 0..) |*one, place| {
            if (one.symbol == batches.NO_KEY) continue;
            const next = &symbols[one.symbol].order_at;
            order[next.*] = @intCast(place);
            next.* += 1;
        }
        for (symbols) |*symbol| symbol.order_at -= symbol.count;
    }

    /// Put a record to the others of its key.
    fn file(self: *Scanner, place: u32, key: []const u8, key_at: usize, is_slow: bool) batches.Failed!void {
        const number = try self.symbols.find(key, key_at);
        const symbol = &self.symbols.entries[number];
        if (symbol.count == 0) symbol.first = place else self.records[symbol.last].next = place;
        symbol.last = place;
        symbol.count += 1;
        symbol.slow += @intFromBool(is_slow);
        self.records[place].symbol = number;
    }
};

/// Whether the headers let it be a trade. Those of other names say nothing of that.
fn headers(reader: *batches.Reader, count: i64, out: *Record) batches.Malformed!trade.Slow {
    var slow = trade.Slow.none;
    var number: i64 = 0;
    while (number < count) : (number += 1) {
        const name = try reader.take(try reader.length() orelse return error.Malformed);
        const value_len = try reader.length();
        const value = try reader.take(value_len orelse 0);
        for (name) |char| {
            if (char >= 0x80) slow = .headers;
        }
        if (std.mem.eql(u8, name, COPY_NAME)) out.is_copy = 1;
        if (std.mem.eql(u8, name, SCHEMA_NAME) and (value_len == null or !std.mem.eql(u8, value, SCHEMA))) slow = .headers;
    }
    return slow;
}
