# Two interpreters at once: strings, hashes and arrays, made, joined, sorted and thrown away.
use strict;
use warnings;
use threads;

my $scale = $ENV{BENCH_SCALE};

sub work {
    my ($state, $total) = (20051020 + $_[0], 0);
    my $roll = sub { $state = ($state * 1103515245 + 12345) % 2147483648; return int($state / 65536) % $_[0]; };
    my %kept;
    for my $turn (1 .. int($scale / 12) || 1) {
        my @lines;
        for my $i (1 .. 2500) {
            my $word = join('', map { chr(97 + $roll->(26)) } 1 .. 2 + $roll->(9));
            push @lines, { word => $word, parts => [ map { $word x $_ } 1 .. 1 + $roll->(6) ], number => $i };
        }
        for my $line (sort { $a->{word} cmp $b->{word} || $a->{number} <=> $b->{number} } @lines) {
            my $text = join ',', @{ $line->{parts} };
            $kept{ substr($line->{word}, 0, 3) } = { text => $text, list => [ split /,/, $text ] };
            $total += length $text;
        }
        delete $kept{$_} for grep { $roll->(3) == 0 } sort keys %kept;
    }
    return $total + keys %kept;
}

my @threads = map { threads->create(\&work, $_) } 1 .. 2;
print join(' ', map { $_->join } @threads), "\n";
