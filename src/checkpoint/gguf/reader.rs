//! The primitives of a GGUF file.

use super::Value;

/// Reads from the front of a file.
pub(super) struct Reader<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(file: &'a [u8]) -> Self {
        Self { file, at: 0 }
    }

    /// How far it is.
    pub fn place(&self) -> usize {
        self.at
    }

    /// The next `count` bytes, which are `what`.
    pub fn take(&mut self, count: u64, what: &str) -> Result<&'a [u8], String> {
        let left = &self.file[self.at..];
        let Some(bytes) = usize::try_from(count).ok().and_then(|count| left.get(..count)) else {
            return Err(format!("{what} takes {count} bytes, and {} are left; the file is cut short", left.len()));
        };
        self.at += bytes.len();
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], String> {
        let bytes = self.take(N as u64, what)?;
        bytes.try_into().map_err(|_| format!("{what} is cut short"))
    }

    pub fn u32(&mut self, what: &str) -> Result<u32, String> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub fn u64(&mut self, what: &str) -> Result<u64, String> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A text, preceded by its length.
    pub fn text(&mut self, what: &str) -> Result<&'a str, String> {
        let length = self.u64(what)?;
        std::str::from_utf8(self.take(length, what)?).map_err(|e| format!("{what} is not UTF-8: {e}"))
    }

    /// A value, preceded by its type.
    pub fn value(&mut self) -> Result<Value, String> {
        let kind = self.u32("a value's type")?;
        if kind == 9 { self.list() } else { self.single(kind) }
    }

    /// A value of type number `kind`.
    fn single(&mut self, kind: u32) -> Result<Value, String> {
        const WHAT: &str = "a value";
        Ok(match kind {
            0 => Value::Int(u8::from_le_bytes(self.array(WHAT)?).into()),
            1 => Value::Int(i8::from_le_bytes(self.array(WHAT)?).into()),
            2 => Value::Int(u16::from_le_bytes(self.array(WHAT)?).into()),
            3 => Value::Int(i16::from_le_bytes(self.array(WHAT)?).into()),
            4 => Value::Int(self.u32(WHAT)?.into()),
            5 => Value::Int(i32::from_le_bytes(self.array(WHAT)?).into()),
            6 => Value::Float(f32::from_le_bytes(self.array(WHAT)?).into()),
            7 => Value::Int(u8::from_le_bytes(self.array(WHAT)?).into()),
            8 => Value::Text(self.text(WHAT)?.to_owned()),
            10 => Value::Int(self.u64(WHAT)?.into()),
            11 => Value::Int(i64::from_le_bytes(self.array(WHAT)?).into()),
            12 => Value::Float(f64::from_le_bytes(self.array(WHAT)?)),
            other => return Err(format!("its type is number {other}, which is not known")),
        })
    }

    /// A list, preceded by its elements' type and number.
    fn list(&mut self) -> Result<Value, String> {
        let kind = self.u32("a list's type")?;
        let count = self.u64("a list's length")?;
        let each = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 => {
                // Every text takes 8 bytes at least, so that a count that the file cannot hold ends soon.
                let mut texts = Vec::new();
                for _ in 0..count {
                    texts.push(self.text("a text of the list")?.to_owned());
                }
                return Ok(Value::Texts(texts));
            }
            10..=12 => 8,
            9 => return Err("lists of lists are not supported".into()),
            other => return Err(format!("its elements' type is number {other}, which is not known")),
        };
        self.take(count.saturating_mul(each), "a list")?;
        Ok(Value::Other)
    }
}
