use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

fn cases() -> ProptestConfig {
    let cases = std::env::var("PELTON_CASES").ok();
    let cases = cases.and_then(|n| n.parse().ok()).unwrap_or(256);
    ProptestConfig::with_cases(cases)
}

type Owned = (u64, Vec<u8>, Option<Vec<u8>>);

fn owned() -> impl Strategy<Value = Vec<Owned>> {
    let frame = (
        0u64..9,
        vec(any::<u8>(), 0..40),
        proptest::option::of(vec(any::<u8>(), 0..70)),
    );
    vec(frame, 0..20)
}

fn encode(frames: &[Owned]) -> Buffer {
    let mut buffer = Buffer::with_capacity(0);
    begin(&mut buffer);
    for (epoch, key, value) in frames {
        let frame = Frame {
            epoch: Epoch(*epoch),
            key,
            value: value.as_deref(),
        };
        append(&mut buffer, &frame);
    }
    let head = BlockHead {
        epoch: Epoch(8),
        state: StateId(3),
        group: KeyGroup(2),
    };
    finish(&mut buffer, 0, head, frames.len() as u32, KIND_FRAMES);
    buffer
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn what_was_written_is_read(frames in owned()) {
        let buffer = encode(&frames);
        prop_assert_eq!(buffer.len() % ALIGN_BLOCK, 0);
        let block = Block::decode(&buffer).unwrap();
        prop_assert_eq!(peek_len(&buffer, u64::MAX), Ok(buffer.len()));
        let read: Vec<Owned> = block
            .frames()
            .map(|f| f.unwrap())
            .map(|f| (f.epoch.0, f.key.to_vec(), f.value.map(<[u8]>::to_vec)))
            .collect();
        prop_assert_eq!(read, frames);
    }

    /// Bytes whose checksum is right and whose content is anything: frames are errors or right, never a panic.
    #[test]
    fn hostile_content_is_an_error(frames in owned(), changes in vec((any::<usize>(), any::<u8>()), 1..6), count in any::<u32>()) {
        let mut buffer = encode(&frames);
        for (at, byte) in changes {
            let at = HEADER + at % (buffer.len() - HEADER + 1);
            if at < buffer.len() {
                buffer[at] = byte;
            }
        }
        buffer[24..28].copy_from_slice(&count.to_le_bytes());
        let crc = crc32c::crc32c(&buffer[4..]);
        buffer[..4].copy_from_slice(&crc.to_le_bytes());
        let block = Block::decode(&buffer).unwrap();
        let read: Vec<_> = block.frames().collect();
        let wrong = read.iter().filter(|f| f.is_err()).count();
        prop_assert!(wrong <= 1);
        prop_assert!(wrong == 0 || read.last().unwrap().is_err());
    }

    /// Anything at all.
    #[test]
    fn hostile_bytes_are_an_error(bytes in vec(any::<u8>(), 0..200), left in any::<u64>()) {
        if let Ok(len) = peek_len(&bytes, left) {
            prop_assert!(len as u64 <= left && len <= BLOCK_MAX);
        }
        prop_assert!(Block::decode(&bytes).is_err());
    }

    #[test]
    fn a_page_is_filled_by_one_pad(blocks in 1usize..200) {
        let mut buffer = Buffer::zeroed(blocks * ALIGN_BLOCK);
        let start = buffer.len();
        fill_up(&mut buffer, 4096, Epoch(4));
        prop_assert_eq!(buffer.len() % 4096, 0);
        if buffer.len() > start {
            let pad = Block::decode(&buffer[start..]).unwrap();
            prop_assert!(pad.is_pad && pad.frames == 0 && pad.head.epoch == Epoch(4));
        }
    }
}
