//! What the library tells Python: MessagePack, which `msgspec` makes objects of at once.

const std = @import("std");

pub const Full = error{Full};

const TEN_TO_19: u64 = 10_000_000_000_000_000_000;
/// A number of 128 bits has at most 39 digits.
const MAX_DIGITS = 39;

pub const Message = struct {
    bytes: []u8,
    at: usize = 0,

    fn room(self: *Message, count: usize) Full![]u8 {
        if (self.bytes.len - self.at < count) return error.Full;
        const begin = self.at;
        self.at += count;
        return self.bytes[begin..][0..count];
    }

    fn headed(self: *Message, head: u8, comptime T: type, value: T) Full!void {
        const out = try self.room(1 + @sizeOf(T));
        out[0] = head;
        std.mem.writeInt(T, out[1..][0..@sizeOf(T)], value, .big);
    }

    pub fn uint(self: *Message, value: u64) Full!void {
        if (value < 0x80) {
            (try self.room(1))[0] = @intCast(value);
        } else if (value <= std.math.maxInt(u32)) {
            try self.headed(0xce, u32, @intCast(value));
        } else {
            try self.headed(0xcf, u64, value);
        }
    }

    pub fn int(self: *Message, value: i64) Full!void {
        if (value >= 0) return self.uint(@intCast(value));
        try self.headed(0xd3, i64, value);
    }

    pub fn array(self: *Message, len: usize) Full!void {
        if (len < 16) {
            (try self.room(1))[0] = 0x90 | @as(u8, @intCast(len));
        } else {
            try self.headed(0xdd, u32, @intCast(len));
        }
    }

    fn textHead(self: *Message, len: usize) Full!void {
        if (len < 32) {
            (try self.room(1))[0] = 0xa0 | @as(u8, @intCast(len));
        } else {
            try self.headed(0xda, u16, @intCast(len));
        }
    }

    pub fn text(self: *Message, value: []const u8) Full!void {
        try self.textHead(value.len);
        @memcpy(try self.room(value.len), value);
    }

    /// A decimal of so many places after the point, in plain notation, all of them written.
    pub fn decimal(self: *Message, value: u128, scale: u8) Full!void {
        var digits: [MAX_DIGITS]u8 = undefined;
        const begin = write(&digits, value);
        const all = digits[begin..];
        const places: usize = scale;
        if (places == 0) return self.text(all);
        if (all.len > places) {
            try self.textHead(all.len + 1);
            const out = try self.room(all.len + 1);
            const whole = all.len - places;
            @memcpy(out[0..whole], all[0..whole]);
            out[whole] = '.';
            @memcpy(out[whole + 1 ..], all[whole..]);
        } else {
            try self.textHead(places + 2);
            const out = try self.room(places + 2);
            out[0] = '0';
            out[1] = '.';
            @memset(out[2 .. out.len - all.len], '0');
            @memcpy(out[out.len - all.len ..], all);
        }
    }
};

/// Writes the digits to the end; gives where they begin.
fn write(digits: *[MAX_DIGITS]u8, value: u128) usize {
    var at: usize = MAX_DIGITS;
    var left = value;
    // Divisions of 128 bits take ten times as long.
    while (left > std.math.maxInt(u64)) {
        var low: u64 = @intCast(left % TEN_TO_19);
        left /= TEN_TO_19;
        for (0..19) |_| {
            at -= 1;
            digits[at] = '0' + @as(u8, @intCast(low % 10));
            low /= 10;
        }
    }
    var high: u64 = @intCast(left);
    while (true) {
        at -= 1;
        digits[at] = '0' + @as(u8, @intCast(high % 10));
        high /= 10;
        if (high == 0) return at;
    }
}
