//! What the hypervisor is given for its VM: a kernel, and an initramfs, in one file.
//!
//! The file begins with `doorbell` and the two lengths, of 64 bits, the lowest byte first. The
//! kernel is at the next multiple of 4 KiB, and the initramfs, which may be empty, at the one after
//! that.

const MAGIC: &[u8; 8] = b"doorbell";
const ALIGNMENT: usize = 4096;

/// The two images.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bundle<'a> {
    /// The kernel.
    pub kernel: Kernel<'a>,
    /// The initramfs.
    pub initramfs: &'a [u8],
}

/// A kernel, and where it begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kernel<'a> {
    /// A flat image, which is put 512 KiB into RAM.
    Flat(&'a [u8]),
    /// An arm64 Image of Linux (Documentation/arch/arm64/booting.rst).
    Linux {
        /// The image.
        image: &'a [u8],
        /// How far from a multiple of 2 MiB it is put.
        text_offset: u64,
        /// How much memory it takes there.
        size: u64,
    },
}

/// Why a file is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wrong {
    /// It does not begin as a bundle does.
    NoBundle,
    /// It ends too early.
    Truncated,
    /// There is no kernel in it.
    NoKernel,
}

impl Wrong {
    /// Returns what to tell the user.
    pub const fn text(self) -> &'static str {
        match self {
            Wrong::NoBundle => "what is in -initrd is no bundle: cargo xtask vm makes one",
            Wrong::Truncated => "the bundle in -initrd is truncated",
            Wrong::NoKernel => "there is no kernel in the bundle",
        }
    }
}

impl<'a> Bundle<'a> {
    /// Returns what is in a file.
    ///
    /// # Errors
    /// If it is no bundle.
    pub fn parse(file: &'a [u8]) -> Result<Self, Wrong> {
        let rest = file.strip_prefix(MAGIC).ok_or(Wrong::NoBundle)?;
        let (kernel, rest) = rest.split_first_chunk::<8>().ok_or(Wrong::Truncated)?;
        let (initramfs, _) = rest.split_first_chunk::<8>().ok_or(Wrong::Truncated)?;
        let [kernel, initramfs] = [kernel, initramfs].map(|&length| usize::try_from(u64::from_le_bytes(length)));
        let part = |start: usize, length: usize| {
            let end = start.checked_add(length)?;
            file.get(start..end)
        };
        let kernel = kernel.ok().and_then(|length| part(ALIGNMENT, length)).ok_or(Wrong::Truncated)?;
        let start = (ALIGNMENT + kernel.len()).next_multiple_of(ALIGNMENT);
        let initramfs = match initramfs {
            Ok(0) => &[],
            Ok(length) => part(start, length).ok_or(Wrong::Truncated)?,
            Err(_) => return Err(Wrong::Truncated),
        };
        Ok(Bundle { kernel: Kernel::parse(kernel)?, initramfs })
    }
}

impl<'a> Kernel<'a> {
    fn parse(image: &'a [u8]) -> Result<Self, Wrong> {
        if image.is_empty() {
            return Err(Wrong::NoKernel);
        }
        let word = |at: usize| image.get(at..)?.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes));
        Ok(match (image.get(56..60), word(8), word(16)) {
            (Some(b"ARM\x64"), Some(text_offset), Some(size)) => {
                Kernel::Linux { image, text_offset: text_offset % (2 << 20), size: size.max(image.len() as u64) }
            }
            _ => Kernel::Flat(image),
        })
    }

    /// Returns the image.
    pub const fn image(&self) -> &'a [u8] {
        match self {
            Kernel::Flat(image) | Kernel::Linux { image, .. } => image,
        }
    }

    /// Returns where the image is put, from the beginning of RAM, and how much memory it takes.
    pub const fn place(&self) -> (u64, u64) {
        match self {
            Kernel::Flat(image) => (512 << 10, image.len() as u64),
            Kernel::Linux { text_offset, size, .. } => ((2 << 20) + *text_offset, *size),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn file(kernel: &[u8], initramfs: &[u8]) -> Vec<u8> {
        let mut file = MAGIC.to_vec();
        file.extend((kernel.len() as u64).to_le_bytes());
        file.extend((initramfs.len() as u64).to_le_bytes());
        for part in [kernel, initramfs] {
            file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
            file.extend(part);
        }
        file
    }

    #[test]
    fn a_flat_image_and_an_initramfs_are_found() {
        let bundle = file(&[1; 5000], &[2; 100]);
        let bundle = Bundle::parse(&bundle).unwrap();
        assert_eq!(bundle, Bundle { kernel: Kernel::Flat(&[1; 5000]), initramfs: &[2; 100] });
        assert_eq!(bundle.kernel.place(), (0x8_0000, 5000));
    }

    #[test]
    fn an_image_of_linux_says_what_it_needs() {
        let mut image = [0; 64];
        image[56..60].copy_from_slice(b"ARM\x64");
        image[8..16].copy_from_slice(&0x8_0000u64.to_le_bytes());
        image[16..24].copy_from_slice(&0x10_0000u64.to_le_bytes());
        let bundle = file(&image, &[]);
        assert_eq!(Bundle::parse(&bundle).unwrap().kernel.place(), (0x28_0000, 0x10_0000));
    }

    #[test]
    fn what_is_no_bundle_is_told_and_what_is_truncated() {
        assert_eq!(Bundle::parse(b"ELF"), Err(Wrong::NoBundle));
        assert_eq!(Bundle::parse(&file(&[], &[1])), Err(Wrong::NoKernel));
        let whole = file(&[1; 5000], &[2; 100]);
        for length in 8..whole.len() {
            assert_eq!(Bundle::parse(&whole[..length]), Err(Wrong::Truncated), "{length}");
        }
        let mut huge = file(&[1; 10], &[]);
        huge[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(Bundle::parse(&huge), Err(Wrong::Truncated));
    }
}
