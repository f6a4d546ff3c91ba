//! Ends with the status that it is told, after reading behind an object if it is told so.

fn main() {
    let words: Vec<String> = std::env::args().collect();
    if words.get(2).is_some() {
        shaky::word(&vec![1; 32], 32);
    }
    std::process::exit(words[1].parse().unwrap());
}
