//! One trade, as Ashi's own ingest writes it.

const std = @import("std");

/// Why a record or a symbol is left to Python. The names are those of `ashi_aggregate.native.kernel.Slow`.
pub const Slow = enum(u32) {
    none = 0,
    no_key = 1,
    no_value = 2,
    headers = 3,
    /// Not the very bytes that Ashi's ingest writes: another order of fields, spaces, escapes, numbers as they may be.
    json = 4,
    /// More than 18 digits, or a zero at either end that changes nothing.
    digits = 5,
    /// Out of the bounds that the contract has.
    bounds = 6,
    /// The symbol in the value is not the key.
    key = 7,
};

/// The `next` of a symbol's last record.
pub const NO_RECORD: u32 = 0xffff_ffff;

pub const Record = extern struct {
    offset: i64,
    /// Append time as the log has it, ms.
    timestamp: i64,
    traded_at: i64,
    sequence: i64,
    /// The id as a number where `id_is_number`: decimal digits, at most 18, and no zero in front.
    id: u64,
    price: u64,
    size: u64,
    /// Where the record begins in the bytes, behind its length.
    at: u32,
    value_at: u32,
    value_len: u32,
    symbol: u32,
    /// The next record of that symbol.
    next: u32,
    slow: u32,
    id_at: u32,
    price_at: u32,
    id_len: u8,
    price_len: u8,
    price_scale: u8,
    size_scale: u8,
    /// 0 none, 1 buy, 2 sell.
    side: u8,
    id_is_number: u8,
    timestamp_type: u8,
    /// Whether a header says that it is a copy, and so when the first one was appended.
    is_copy: u8,
};

pub const EARLIEST_US: u64 = 1_000_000_000_000_000;
pub const LATEST_US: u64 = (1 << 53) - 1;
const MAX_AHEAD_US: u64 = 60_000_000;
pub const MAX_ID_LENGTH = 128;
/// So many digits fit into 64 bits whatever they are.
pub const MAX_DIGITS = 18;

/// Text, read from the front, that is either as expected or not a trade as Ashi writes it.
pub const Text = struct {
    bytes: []const u8,
    at: usize = 0,

    const Other = error{Other};

    fn literal(self: *Text, comptime expected: []const u8) Other!void {
        if (self.bytes.len - self.at < expected.len) return error.Other;
        // As one vector: to compare them byte by byte takes three times as long.
        const Bytes = @Vector(expected.len, u8);
        const found: Bytes = self.bytes[self.at..][0..expected.len].*;
        const wanted: Bytes = expected[0..expected.len].*;
        if (@reduce(.Or, found != wanted)) return error.Other;
        self.at += expected.len;
    }

    fn peek(self: *const Text) u8 {
        return if (self.at < self.bytes.len) self.bytes[self.at] else 0;
    }

    /// A JSON integer of at most 19 digits that is not negative.
    fn integer(self: *Text) Other!u64 {
        const begin = self.at;
        var value: u64 = 0;
        // Times have sixteen digits, which are read as two words.
        if (self.bytes.len - begin >= 16) {
            if (eightDigits(self.bytes[begin..][0..8])) |high| {
                if (eightDigits(self.bytes[begin + 8 ..][0..8])) |low| {
                    value = high * 100_000_000 + low;
                    self.at += 16;
                }
            }
        }
        while (true) : (self.at += 1) {
            const digit = self.peek() -% '0';
            if (digit > 9) break;
            if (self.at - begin >= 19) return error.Other;
            value = value * 10 + digit;
        }
        const len = self.at - begin;
        if (len == 0 or (len > 1 and self.bytes[begin] == '0')) return error.Other;
        return value;
    }
};

/// The number that eight characters are, null where one is no digit.
fn eightDigits(chars: *const [8]u8) ?u64 {
    const word = std.mem.readInt(u64, chars, .little);
    const digits = word -% 0x3030303030303030;
    // No digit: above nine, or, as it is below zero then, above 127.
    if ((digits | (digits +% 0x7676767676767676)) & 0x8080808080808080 != 0) return null;
    // Neighbours are joined: to pairs, to fours, to the eight.
    const pairs = (digits * 10 + (digits >> 8)) & 0x00ff00ff00ff00ff;
    const fours = (pairs * 100 + (pairs >> 16)) & 0x0000ffff0000ffff;
    return (fours * 10_000 + (fours >> 32)) & 0xffffffff;
}

pub const Amount = struct { value: u64, scale: u8, at: usize, len: usize };

/// A decimal up to the quote behind it, if it is written as `format_decimal` does; null where another way is Python's.
pub fn amount(text: *Text) ?Amount {
    const begin = text.at;
    var value: u64 = 0;
    var digits: usize = 0;
    while (true) : (text.at += 1) {
        const digit = text.peek() -% '0';
        if (digit > 9) break;
        digits += 1;
        if (digits > MAX_DIGITS) return null;
        value = value * 10 + digit;
    }
    if (digits == 0 or (digits > 1 and text.bytes[begin] == '0')) return null;
    var scale: u8 = 0;
    if (text.peek() == '.') {
        text.at += 1;
        while (true) : (text.at += 1) {
            const digit = text.peek() -% '0';
            if (digit > 9) break;
            scale += 1;
            digits += 1;
            if (digits > MAX_DIGITS) return null;
            value = value * 10 + digit;
        }
        if (scale == 0 or text.bytes[text.at - 1] == '0') return null;
    }
    return .{ .value = value, .scale = scale, .at = begin, .len = text.at - begin };
}

/// Reads a trade that is written as `ashi.contracts.trade.encode_trade` does, and checks what `check_trade` checks but
/// for the symbol, which is only held against the key.
pub fn parse(value: []const u8, key: []const u8, out: *Record) Slow {
    var text = Text{ .bytes = value };
    text.literal("{\"symbol\":\"") catch return .json;
    if (text.bytes.len - text.at < key.len) return .key;
    if (!std.mem.eql(u8, text.bytes[text.at..][0..key.len], key)) return .key;
    for (key) |char| {
        if (char < 0x21 or char == '"' or char == '\\' or char == 0x7f) return .json;
    }
    text.at += key.len;
    text.literal("\",\"trade_id\":\"") catch return .json;

    const id_begin = text.at;
    var id: u64 = 0;
    var is_number = true;
    while (true) : (text.at += 1) {
        const char = text.peek();
        if (char == '"') break;
        if (char < 0x21 or char > 0x7e or char == '\\') return .json;
        const digit = char -% '0';
        if (digit > 9) {
            is_number = false;
        } else if (text.at - id_begin < MAX_DIGITS) {
            id = id * 10 + digit;
        }
    }
    const id_len = text.at - id_begin;
    if (id_len == 0 or id_len > MAX_ID_LENGTH) return .bounds;
    // A number too, to Python, which counts it: too long for here.
    if (id_len > MAX_DIGITS or (id_len > 1 and value[id_begin] == '0')) is_number = false;
    const base = out.value_at;
    out.id = if (is_number) id else 0;
    out.id_is_number = @intFromBool(is_number);
    out.id_at = base + @as(u32, @intCast(id_begin));
    out.id_len = @intCast(id_len);

    text.literal("\",\"price\":\"") catch return .json;
    const price = amount(&text) orelse return .digits;
    text.literal("\",\"size\":\"") catch return .json;
    const size = amount(&text) orelse return .digits;
    text.literal("\",\"side\":") catch return .json;
    switch (text.peek()) {
        '"' => {
            if (text.bytes.len - text.at > 2 and text.bytes[text.at + 1] == 'b') {
                text.literal("\"buy\"") catch return .json;
                out.side = 1;
            } else {
                text.literal("\"sell\"") catch return .json;
                out.side = 2;
            }
        },
        else => text.literal("null") catch return .json,
    }
    text.literal(",\"traded_at\":") catch return .json;
    const traded_at = text.integer() catch return .json;
    text.literal(",\"received_at\":") catch return .json;
    const received_at = text.integer() catch return .json;
    text.literal(",\"sequence\":") catch return .json;
    const sequence = text.integer() catch return .json;
    text.literal("}") catch return .json;
    if (text.at != text.bytes.len) return .json;
    if (traded_at < EARLIEST_US or traded_at > LATEST_US) return .bounds;
    if (received_at < EARLIEST_US or received_at > LATEST_US) return .bounds;
    if (traded_at > received_at and traded_at - received_at > MAX_AHEAD_US) return .bounds;
    if (sequence > std.math.maxInt(i64)) return .bounds;

    out.price = price.value;
    out.price_scale = price.scale;
    out.price_at = base + @as(u32, @intCast(price.at));
    out.price_len = @intCast(price.len);
    out.size = size.value;
    out.size_scale = size.scale;
    out.traded_at = @intCast(traded_at);
    out.sequence = @intCast(sequence);
    return .none;
}
