# Hashes of arrays, string building, sorting, matching.
use strict;
use warnings;

my $scale = $ENV{BENCH_SCALE};
my $state = 20051020;
sub roll { $state = ($state * 1103515245 + 12345) % 2147483648; return int($state / 65536) % $_[0]; }

my $turns = int($scale / 16) || 1;
my $total = 0;
for my $turn (1 .. $turns) {
    my (%groups, @lines);
    for my $i (1 .. 9000) {
        my $word = join('', map { chr(97 + roll(26)) } 1 .. 2 + roll(9));
        push @{ $groups{ substr($word, 0, 2) } }, { word => $word, number => $i, text => $word x (1 + roll(12)) };
        push @lines, "$i:$word:" . roll(1000);
    }
    for my $key (sort keys %groups) {
        my @sorted = sort { $a->{word} cmp $b->{word} || $a->{number} <=> $b->{number} } @{ $groups{$key} };
        my $joined = join ',', map { uc $_->{text} } @sorted;
        $total += length $joined;
        $total += () = $joined =~ /[AEIOU][^AEIOU]+/g;
    }
    my %fields = map { my @part = split /:/; ($part[1] => [@part]) } @lines;
    delete $fields{$_} for grep { roll(2) } sort keys %fields;
    $total += scalar keys %fields;
}
print "$total\n";
