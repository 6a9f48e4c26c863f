//! What the hypervisor is given for its VMs, in one file: what they are, and their images.
//!
//! The file begins with lines of text, and an empty one. The first line is `doorbell`; each of the
//! others is a VM or an option, words with spaces between:
//!
//! ```text
//! doorbell
//! migrate=42
//! vm=vm0 vcpus=4 memory=192 kernel=4096+31457280 initramfs=31461376+1048576 console=ttyAMA0
//! ```
//!
//! A VM has its name, how many vCPUs and MiB of RAM, and where its images begin in the file and how
//! long they are; what follows is what its kernel is told. With `migrate`, vCPUs move to other CPUs
//! at random, from that seed. With a line `console=raw`, what guests write comes out as it is, and
//! not in lines that begin with their names. With `measure=exits`, each VM says at its end how long
//! its longest exit has taken. With `watchdog=20000`, a VM that makes no progress for so many
//! milliseconds says so and ends; with `watchdog=20000,report` the VM goes on.

use core::ops::Range;

/// The first line.
const MAGIC: &str = "doorbell\n";
/// How long the text may be.
const TEXT: usize = 4096;

/// The description of a bundle, which is whole and right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bundle<'a> {
    file: &'a [u8],
    text: &'a str,
    /// From which seed vCPUs move to other CPUs at random; never if there is none.
    pub migrate: Option<u64>,
    /// Whether what guests write comes out byte by byte, and not in lines with their names.
    pub raw: bool,
    /// Whether it is measured how long exits take.
    pub measure: bool,
    /// The watchdog, if there is one.
    pub watchdog: Option<Watchdog>,
}

/// What is watched for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Watchdog {
    /// How long a VM may make no progress, in milliseconds of its own time.
    pub limit: u64,
    /// Whether a VM that is stalled ends.
    pub ends: bool,
}

/// What a VM is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vm<'a> {
    /// The name of the VM.
    pub name: &'a str,
    /// How many vCPUs it has, from 1 on.
    pub vcpus: usize,
    /// How much RAM it has, in bytes.
    pub memory: u64,
    /// The kernel.
    pub kernel: Kernel<'a>,
    /// The initramfs, which may be empty.
    pub initramfs: &'a [u8],
    /// What the kernel is told.
    pub arguments: &'a str,
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
    /// The bytes do not begin as a bundle does.
    NoBundle,
    /// The bytes end too early.
    Truncated,
    /// There is a line or a word that is not known, or one is missing.
    Text,
    /// There is no VM in it.
    NoVm,
    /// There is no kernel in it.
    NoKernel,
    /// A VM has too many vCPUs, or none.
    Vcpus,
}

/// How many vCPUs a VM may have.
pub const MOST_VCPUS: usize = 8;

impl Wrong {
    /// Returns what to tell the user.
    pub const fn text(self) -> &'static str {
        match self {
            Wrong::NoBundle => "what is in -initrd is no bundle: cargo xtask vm makes one",
            Wrong::Truncated => "the bundle in -initrd is truncated",
            Wrong::Text => "the bundle in -initrd says what is not known: see hv/src/bundle.rs",
            Wrong::NoVm => "there is no VM in the bundle",
            Wrong::NoKernel => "there is no kernel in the bundle",
            Wrong::Vcpus => "a VM has 1 to 8 vCPUs",
        }
    }
}

impl<'a> Bundle<'a> {
    /// Returns what is in a file. All that it says is looked at.
    ///
    /// # Errors
    /// If it is no bundle.
    pub fn parse(file: &'a [u8]) -> Result<Self, Wrong> {
        if file.len() < MAGIC.len() && MAGIC.as_bytes().starts_with(file) && !file.is_empty() {
            return Err(Wrong::Truncated);
        }
        let rest = file.strip_prefix(MAGIC.as_bytes()).ok_or(Wrong::NoBundle)?;
        let rest = &rest[..rest.len().min(TEXT)];
        let end = rest.windows(2).position(|two| two == b"\n\n").ok_or(Wrong::Truncated)?;
        let text = str::from_utf8(&rest[..end]).map_err(|_| Wrong::Text)?;
        let mut bundle =
            Bundle { file, text, migrate: None, raw: false, measure: false, watchdog: None };
        let mut vms = 0;
        for line in text.lines() {
            match line.split_once('=') {
                Some(("migrate", seed)) => {
                    bundle.migrate = Some(seed.parse().map_err(|_| Wrong::Text)?)
                }
                Some(("console", "raw")) => bundle.raw = true,
                Some(("measure", "exits")) => bundle.measure = true,
                Some(("watchdog", limit)) => bundle.watchdog = Some(Watchdog::parse(limit)?),
                _ => vms += bundle.vm(line).map(|_| 1)?,
            }
        }
        if vms == 0 { Err(Wrong::NoVm) } else { Ok(bundle) }
    }

    /// Returns its VMs.
    pub fn vms(self) -> impl Iterator<Item = Vm<'a>> {
        self.text.lines().filter_map(move |line| self.vm(line).ok())
    }

    fn vm(&self, line: &'a str) -> Result<Vm<'a>, Wrong> {
        let mut rest = line;
        let mut word = |key: &str| -> Result<&'a str, Wrong> {
            let (value, after) =
                rest.strip_prefix(key).ok_or(Wrong::Text)?.split_once(' ').ok_or(Wrong::Text)?;
            rest = after;
            Ok(value)
        };
        let number = |text: &str| text.parse::<u64>().map_err(|_| Wrong::Text);
        let (name, vcpus, memory) =
            (word("vm=")?, number(word("vcpus=")?)?, number(word("memory=")?)?);
        let (kernel, initramfs) = (self.part(word("kernel=")?)?, self.part(word("initramfs=")?)?);
        if !(1..=MOST_VCPUS as u64).contains(&vcpus) {
            return Err(Wrong::Vcpus);
        }
        let memory = memory.checked_mul(1 << 20).ok_or(Wrong::Text)?;
        let kernel = Kernel::parse(kernel)?;
        Ok(Vm { name, vcpus: vcpus as usize, memory, kernel, initramfs, arguments: rest })
    }

    /// Returns what is at `START+LENGTH`.
    fn part(&self, text: &str) -> Result<&'a [u8], Wrong> {
        let (start, length) = text.split_once('+').ok_or(Wrong::Text)?;
        let number = |text: &str| text.parse::<usize>().map_err(|_| Wrong::Text);
        let (start, length) = (number(start)?, number(length)?);
        let end = start.checked_add(length).ok_or(Wrong::Truncated)?;
        self.file.get(start..end).ok_or(Wrong::Truncated)
    }
}

impl Watchdog {
    /// How long the limit may be: a day.
    const LONGEST: u64 = 24 * 60 * 60 * 1000;

    fn parse(text: &str) -> Result<Self, Wrong> {
        let (limit, ends) = text.strip_suffix(",report").map_or((text, true), |text| (text, false));
        let limit = limit.parse().map_err(|_| Wrong::Text)?;
        if !(1..=Self::LONGEST).contains(&limit) {
            return Err(Wrong::Text);
        }
        Ok(Watchdog { limit, ends })
    }
}

impl<'a> Kernel<'a> {
    fn parse(image: &'a [u8]) -> Result<Self, Wrong> {
        if image.is_empty() {
            return Err(Wrong::NoKernel);
        }
        let word =
            |at: usize| image.get(at..)?.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes));
        Ok(match (image.get(56..60), word(8), word(16)) {
            (Some(b"ARM\x64"), Some(text_offset), Some(size)) => Kernel::Linux {
                image,
                text_offset: text_offset % (2 << 20),
                size: size.max(image.len() as u64),
            },
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
    const fn place(&self) -> (u64, u64) {
        match self {
            Kernel::Flat(image) => (512 << 10, image.len() as u64),
            Kernel::Linux { text_offset, size, .. } => ((2 << 20) + *text_offset, *size),
        }
    }
}

/// Where the images of a VM are put, from the beginning of its RAM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Places {
    /// The kernel.
    pub kernel: u64,
    /// The initramfs, from page to page.
    pub initramfs: Range<u64>,
    /// The device tree, at the end.
    pub device_tree: u64,
}

impl Vm<'_> {
    /// Returns where its images are put; none if it has too little RAM.
    pub fn places(&self) -> Option<Places> {
        /// For the device tree.
        const TREE: u64 = 64 << 10;
        let (kernel, needed) = self.kernel.place();
        let device_tree = self.memory.checked_sub(TREE)? & !0xfff;
        let length = self.initramfs.len() as u64;
        let start = device_tree.checked_sub(length)? & !0xfff;
        let end = kernel.checked_add(needed)?;
        (end <= start).then_some(Places { kernel, initramfs: start..start + length, device_tree })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::String;
    use alloc::vec::Vec;

    fn file(text: &str, kernel: &[u8], initramfs: &[u8]) -> Vec<u8> {
        let kernel_at = 512;
        let initramfs_at = kernel_at + kernel.len();
        let mut file = text
            .replace("KERNEL", &format!("{kernel_at}+{}", kernel.len()))
            .replace("INITRAMFS", &format!("{initramfs_at}+{}", initramfs.len()))
            .into_bytes();
        file.resize(kernel_at, 0);
        file.extend(kernel);
        file.extend(initramfs);
        file
    }

    const ONE: &str =
        "doorbell\nvm=a vcpus=2 memory=16 kernel=KERNEL initramfs=INITRAMFS quiet x=y\n\n";

    #[test]
    fn a_vm_is_what_its_line_says() {
        let file = file(ONE, &[1; 5000], &[2; 100]);
        let bundle = Bundle::parse(&file).unwrap();
        let vm = Vm {
            name: "a",
            vcpus: 2,
            memory: 16 << 20,
            kernel: Kernel::Flat(&[1; 5000]),
            initramfs: &[2; 100],
            arguments: "quiet x=y",
        };
        assert_eq!(
            (bundle.vms().collect::<Vec<_>>(), bundle.migrate, bundle.raw),
            ([vm].into(), None, false)
        );
        let end = (16 << 20) - (64 << 10);
        let places =
            Places { kernel: 0x8_0000, initramfs: end - 4096..end - 3996, device_tree: end };
        assert_eq!(vm.places(), Some(places));
    }

    #[test]
    fn there_may_be_several_vms_and_options() {
        let line = "vcpus=1 memory=16 kernel=KERNEL initramfs=0+0 \n";
        let file = file(
            &format!("doorbell\nvm=a {line}migrate=77\nconsole=raw\nmeasure=exits\nvm=b {line}\n"),
            &[1],
            &[],
        );
        let bundle = Bundle::parse(&file).unwrap();
        assert!(bundle.vms().map(|vm| vm.name).eq(["a", "b"]));
        assert_eq!((bundle.migrate, bundle.raw, bundle.measure), (Some(77), true, true));
    }

    #[test]
    fn a_watchdog_has_a_limit_and_ends_the_vm_unless_it_only_reports() {
        let watchdog = |text: &str| {
            let line = "vm=a vcpus=1 memory=16 kernel=KERNEL initramfs=0+0 \n";
            let file = file(&format!("doorbell\nwatchdog={text}\n{line}\n"), &[1], &[]);
            Bundle::parse(&file).map(|bundle| bundle.watchdog)
        };
        assert_eq!(watchdog("200"), Ok(Some(Watchdog { limit: 200, ends: true })));
        assert_eq!(watchdog("9,report"), Ok(Some(Watchdog { limit: 9, ends: false })));
        for wrong in ["", "0", "-1", "9,", "9,reports", "86400001", "18446744073709551616"] {
            assert_eq!(watchdog(wrong), Err(Wrong::Text), "{wrong}");
        }
    }

    #[test]
    fn an_image_of_linux_says_what_it_needs() {
        let mut image = [0; 64];
        image[56..60].copy_from_slice(b"ARM\x64");
        image[8..16].copy_from_slice(&0x8_0000u64.to_le_bytes());
        image[16..24].copy_from_slice(&0xd0_0000u64.to_le_bytes());
        let places = |memory| {
            let file = file(&ONE.replace("memory=16", memory), &image, &[]);
            Bundle::parse(&file).unwrap().vms().next().unwrap().places()
        };
        assert_eq!(places("memory=16").map(|places| places.kernel), Some(0x28_0000));
        for too_little in ["memory=15", "memory=1", "memory=0"] {
            assert_eq!(places(too_little), None, "{too_little}");
        }
    }

    #[test]
    fn what_is_no_bundle_is_told_and_what_is_truncated() {
        for none in [&b""[..], b"ELF", b"doorbells"] {
            assert_eq!(Bundle::parse(none), Err(Wrong::NoBundle));
        }
        let whole = file(ONE, &[1; 5000], &[2; 100]);
        for length in 1..whole.len() {
            assert_eq!(Bundle::parse(&whole[..length]), Err(Wrong::Truncated), "{length}");
        }
    }

    #[test]
    fn what_is_not_known_or_cannot_be_is_told() {
        let wrong = |from: &str, to: &str| {
            Bundle::parse(&file(&ONE.replacen(from, to, 1), &[1], &[])).map(|_| ())
        };
        for vcpus in ["vcpus=0", "vcpus=9"] {
            assert_eq!(wrong("vcpus=2", vcpus), Err(Wrong::Vcpus));
        }
        for memory in ["memory=", "memory=-1", "memory=18446744073709551615"] {
            assert_eq!(wrong("memory=16", memory), Err(Wrong::Text));
        }
        assert_eq!(wrong("vm=", "vn="), Err(Wrong::Text));
        assert_eq!(wrong("kernel=KERNEL", "kernel=0+0"), Err(Wrong::NoKernel));
        assert_eq!(wrong("kernel=KERNEL", "kernel=18446744073709551615+2"), Err(Wrong::Truncated));
        assert_eq!(wrong("vm=", "migrate=x\nvm="), Err(Wrong::Text));
        let none = String::from("doorbell\nmigrate=1\n\n");
        assert_eq!(Bundle::parse(none.as_bytes()), Err(Wrong::NoVm));
    }
}
