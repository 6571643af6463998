//! Kafka's record batches (magic 2, not compressed), and a table of the keys in them.
//!
//! Every length that foreign bytes give is held against their end before it is used.

const std = @import("std");

/// What a call could not be carried out for. Nothing of the output counts then.
pub const Failure = enum(i32) {
    none = 0,
    /// The bytes are no record batches of magic 2, or end within one.
    malformed = -1,
    /// More records or symbols than there is room for.
    no_room = -2,
};

pub const Malformed = error{Malformed};
pub const Failed = error{ Malformed, NoRoom };

pub fn failureOf(failed: Failed) i32 {
    return @backingInt(switch (failed) {
        error.Malformed => Failure.malformed,
        error.NoRoom => Failure.no_room,
    });
}

pub const Reader = struct {
    bytes: []const u8,
    at: usize,

    pub fn left(self: *const Reader) usize {
        return self.bytes.len - self.at;
    }

    pub fn take(self: *Reader, count: usize) Malformed![]const u8 {
        if (count > self.left()) return error.Malformed;
        const taken = self.bytes[self.at..][0..count];
        self.at += count;
        return taken;
    }

    pub fn int(self: *Reader, comptime T: type) Malformed!T {
        const taken = try self.take(@sizeOf(T));
        return std.mem.readInt(T, taken[0..@sizeOf(T)], .big);
    }

    /// A zigzag number of variable length, as records have them: 64 bits in ten bytes at most.
    pub fn varint(self: *Reader) Malformed!i64 {
        var value: u64 = 0;
        var shift: u32 = 0;
        while (true) {
            if (self.at >= self.bytes.len or shift > 63) return error.Malformed;
            const byte = self.bytes[self.at];
            self.at += 1;
            if (shift == 63 and byte > 1) return error.Malformed;
            value |= @as(u64, byte & 0x7f) << @intCast(shift);
            if (byte & 0x80 == 0) break;
            shift += 7;
        }
        const half: i64 = @bitCast(value >> 1);
        return if (value & 1 == 0) half else ~half;
    }

    /// A length; -1 stands for null, and so does, as for the client library, whatever is less.
    pub fn length(self: *Reader) Malformed!?usize {
        const value = try self.varint();
        return if (value < 0) null else @intCast(value);
    }
};

/// Calls `handler.record(reader, at, offset, timestamp, appended)` for each record from offset `begin` on. The reader
/// ends with the record and stands behind its offset; `at` is where the record began.
pub fn walk(bytes: []const u8, begin: i64, handler: anytype) Failed!void {
    var reader = Reader{ .bytes = bytes, .at = 0 };
    while (reader.left() > 0) try batch(&reader, begin, handler);
}

fn batch(reader: *Reader, begin: i64, handler: anytype) Failed!void {
    const base_offset = try reader.int(i64);
    const length = try reader.int(i32);
    if (length < 49) return error.Malformed;
    const body = try reader.take(@intCast(length));
    var inside = Reader{ .bytes = reader.bytes[0..reader.at], .at = reader.at - body.len };
    _ = try inside.int(i32); // the leader's epoch
    if (try inside.int(i8) != 2) return error.Malformed;
    _ = try inside.int(u32); // the checksum, which has been looked at before
    const attributes = try inside.int(i16);
    if (attributes & 0x07 != 0) return error.Malformed; // compressed
    const appended = attributes & 0x08 != 0;
    _ = try inside.int(i32); // the last offset's delta
    const first_timestamp = try inside.int(i64);
    const max_timestamp = try inside.int(i64);
    _ = try inside.take(8 + 2 + 4); // the producer: id, epoch, first sequence
    const count = try inside.int(i32);
    if (count < 0) return error.Malformed;
    var number: i32 = 0;
    while (number < count) : (number += 1) {
        const record_length = try inside.varint();
        if (record_length < 0 or record_length > inside.left()) return error.Malformed;
        const end = inside.at + @as(usize, @intCast(record_length));
        var one = Reader{ .bytes = inside.bytes[0..end], .at = inside.at };
        const at = one.at;
        _ = try one.take(1); // attributes, of which there are none
        const timestamp_delta = try one.varint();
        const offset_delta = try one.varint();
        const timestamp = if (appended) max_timestamp else first_timestamp +% timestamp_delta;
        const offset = base_offset +% offset_delta;
        if (offset >= begin) try handler.record(&one, at, offset, timestamp, appended);
        inside.at = end;
    }
    if (inside.left() != 0) return error.Malformed;
}

pub const NO_KEY: u32 = 0xffff_ffff;

/// Numbers of keys, in the order in which they come.
pub fn KeyTable(comptime Entry: type) type {
    return struct {
        bytes: []const u8,
        /// What is known of each key: `key_at` and `key_len` say where it first stands.
        entries: []Entry,
        /// Places for numbers, a power of two and more than there may be entries, all NO_KEY at first.
        table: []u32,
        /// Of the hashes, so that nobody can choose keys that meet.
        seed: u64,
        count: u32 = 0,
        /// That of the record before: most often it is the same, or one of few.
        last: u32 = NO_KEY,

        const Self = @This();

        /// The number of a key; of a new one the entry is zeroes but for where it stands.
        pub fn find(self: *Self, key: []const u8, key_at: usize) Failed!u32 {
            if (self.last != NO_KEY and self.isNamed(self.last, key)) return self.last;
            self.last = try self.lookUp(key, key_at);
            return self.last;
        }

        fn lookUp(self: *Self, key: []const u8, key_at: usize) Failed!u32 {
            const mask = self.table.len - 1;
            var slot = std.hash.Wyhash.hash(self.seed, key) & mask;
            while (self.table[slot] != NO_KEY) : (slot = (slot + 1) & mask) {
                if (self.isNamed(self.table[slot], key)) return self.table[slot];
            }
            if (self.count >= self.entries.len) return error.NoRoom;
            const entry = &self.entries[self.count];
            entry.* = std.mem.zeroes(Entry);
            entry.key_at = @intCast(key_at);
            entry.key_len = @intCast(key.len);
            self.table[slot] = self.count;
            self.count += 1;
            return self.count - 1;
        }

        fn isNamed(self: *const Self, number: u32, key: []const u8) bool {
            const entry = &self.entries[number];
            return std.mem.eql(u8, self.bytes[entry.key_at..][0..entry.key_len], key);
        }
    };
}
