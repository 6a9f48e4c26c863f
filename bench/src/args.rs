//! The command lines of the benches: few options, told apart from what cargo adds.

/// How results are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// For people.
    Table,
    /// One object a line.
    Json,
}

/// What a bench was asked for.
#[derive(Clone, PartialEq, Debug)]
pub struct Args {
    /// How results are printed.
    pub format: Format,
    /// The value of the bench's own option, if it has one and it was given.
    pub number: Option<f64>,
}

/// A bench, as its help describes it.
pub struct About {
    /// The name of the program.
    pub name: &'static str,
    /// What it measures.
    pub what: &'static str,
    /// The program's own option, which takes a positive number, with its explanation.
    pub option: Option<(&'static str, &'static str)>,
}

impl About {
    /// The arguments of this process. Prints the help and ends the process if that was asked for,
    /// or a complaint if something else is wrong (status 2).
    pub fn args(&self) -> Args {
        match self.parse(std::env::args().skip(1)) {
            Ok(Some(args)) => args,
            Ok(None) => {
                print!("{}", self.help());
                std::process::exit(0)
            }
            Err(complaint) => {
                eprintln!("{complaint}\n\n{}", self.help());
                std::process::exit(2)
            }
        }
    }

    fn parse(&self, args: impl IntoIterator<Item = String>) -> Result<Option<Args>, String> {
        let mut parsed = Args { format: Format::Table, number: None };
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            match (arg.as_str(), self.option) {
                ("-h" | "--help", _) => return Ok(None),
                // Cargo adds it to the command line of every bench.
                ("--bench", _) => {}
                ("--format", _) => {
                    parsed.format = match args.next().as_deref() {
                        Some("table") => Format::Table,
                        Some("json") => Format::Json,
                        _ => return Err("--format is table or json".to_owned()),
                    }
                }
                (given, Some((option, _))) if given == option => {
                    let number =
                        args.next().and_then(|text| text.parse().ok()).filter(|&n: &f64| n > 0.0);
                    parsed.number =
                        Some(number.ok_or_else(|| format!("{option} needs a positive number"))?);
                }
                _ => return Err(format!("what is {arg}?")),
            }
        }
        Ok(Some(parsed))
    }

    fn help(&self) -> String {
        let own =
            self.option.map(|(option, what)| format!("  {option} N  {what}\n")).unwrap_or_default();
        format!(
            "{}\n\nusage: cargo bench -p doorbell-bench --bench {} -- [OPTIONS]\n\n\
             {own}  --format table|json\n  --help\n",
            self.what, self.name
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABOUT: About =
        About { name: "x", what: "Measures x.", option: Some(("--seconds", "how long")) };

    fn parse(args: &[&str]) -> Result<Option<Args>, String> {
        ABOUT.parse(args.iter().map(|&arg| arg.to_owned()))
    }

    #[test]
    fn what_cargo_adds_is_ignored() {
        assert_eq!(parse(&["--bench"]), Ok(Some(Args { format: Format::Table, number: None })));
    }

    #[test]
    fn a_number_and_a_format_are_understood() {
        let args = parse(&["--seconds", "2.5", "--format", "json"]);
        assert_eq!(args, Ok(Some(Args { format: Format::Json, number: Some(2.5) })));
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        assert_eq!(
            parse(&["--seconds", "-1"]),
            Err("--seconds needs a positive number".to_owned())
        );
        assert_eq!(parse(&["--format", "xml"]), Err("--format is table or json".to_owned()));
        assert_eq!(parse(&["fast"]), Err("what is fast?".to_owned()));
        assert_eq!(parse(&["--help"]), Ok(None));
    }
}
