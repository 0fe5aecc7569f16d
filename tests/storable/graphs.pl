#!/usr/bin/perl
# A worker that creates random sessions and describes sessions. Requests and replies have one line:
#   make SEED freeze|nfreeze      the image of a session, in base64
#   dump BASE64 KEY,KEY...        Data::Dumper's output for the session without these keys, in base64
use strict;
use warnings;
use Data::Dumper;
use MIME::Base64 qw(decode_base64 encode_base64);
use Scalar::Util qw(weaken);
use Storable qw(freeze nfreeze thaw);

package Graph::Hooked {
    sub STORABLE_freeze { my ($self) = @_; return ("kept:$self->{text}", @{ $self->{parts} }) }

    sub STORABLE_thaw {
        my ($self, undef, $text, @parts) = @_;
        ($self->{text}, $self->{parts}) = ($text =~ s/^kept://r, [@parts]);
    }
}

package Graph::Loud {
    use overload '""' => sub { 'loud' };
}

package main;

$| = 1;
($Data::Dumper::Sortkeys, $Data::Dumper::Indent, $Data::Dumper::Useqq) = (1, 0, 1);
my @pool;

sub node {
    my ($depth) = @_;
    my $pick = int rand($depth > 3 ? 4 : 16);
    return int(rand 100000) - 50000 if $pick == 0;
    return 'text ' . int rand 1000 if $pick == 1;
    return undef if $pick == 2;
    return $pool[ rand @pool ] if $pick == 3 && @pool;
    return 'x' x rand 600 if $pick == 3;
    my $made = container($depth, $pick);
    push @pool, $made if rand() < 0.4;
    return $made;
}

sub items { my ($depth) = @_; return map { node($depth + 1) } 1 .. rand 4 }
sub pairs { my ($depth) = @_; return map { ('k' . int rand 9 => node($depth + 1)) } 1 .. rand 4 }

sub container {
    my ($depth, $pick) = @_;
    return [items($depth)] if $pick < 8;
    return {pairs($depth)} if $pick < 11;
    my $class = 'Graph::Class' . int rand 3;
    return bless [items($depth)], $class if $pick == 11;
    return bless { pairs($depth), "\x{263a}" => 1 }, $class if $pick == 12;
    return bless { text => 't' x rand 300, parts => [grep { ref } items($depth)] }, 'Graph::Hooked' if $pick == 13;
    return special($depth) if $pick == 14;
    return bless {pairs($depth)}, 'Graph::Loud';
}

sub special {
    my ($depth) = @_;
    my $pick = int rand 5;
    return qr/a+b/i if $pick == 0;
    return \"a scalar" if $pick == 1;
    return \[items($depth)] if $pick == 2;
    my $strong = {pairs($depth)};
    my $pair = [$strong, $strong];
    weaken($pair->[1]) if $pick == 3;
    return $pair;
}

sub make {
    my ($seed, $function) = @_;
    srand $seed;
    @pool = ();
    my %session = map { ("key$_" => node(0)) } 1 .. 2 + rand 8;
    $session{bytes} = "\xc3\xa9";
    $session{characters} = "\x{263a}";
    return $function eq 'freeze' ? freeze(\%session) : nfreeze(\%session);
}

sub describe {
    my ($data, @keys) = @_;
    my $session = thaw(decode_base64($data));
    utf8::decode($_) for @keys;
    delete @$session{@keys};
    return Dumper($session);
}

while (my $line = <STDIN>) {
    my ($command, $first, $second) = split ' ', $line;
    print encode_base64($command eq 'make' ? make($first, $second) : describe($first, split /,/, $second // ''), ''), "\n";
}
