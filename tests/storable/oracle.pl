#!/usr/bin/perl
# Serves real perl's Storable over standard input and output, in messages of a 4 byte length and
# bytes. A request begins with a letter: d(escribe), f(reeze again), n(freeze again); then the image.
# A reply begins with +, or with - and the reason if perl died.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Describe;

binmode $_ for *STDIN, *STDOUT;
$| = 1;
$Storable::recursion_limit = $Storable::recursion_limit_hash = -1;
while (read(STDIN, my $head, 4) == 4) {
    read(STDIN, my $request, unpack 'N', $head) == unpack('N', $head) or die 'short request';
    my $order = substr $request, 0, 1, '';
    my $reply = eval {
        my $root = Describe::read_image($request);
        $order eq 'd' ? Describe::describe($root)
            : $order eq 'f' ? Storable::freeze($root) : Storable::nfreeze($root);
    };
    $reply = defined $reply ? "+$reply" : "-$@";
    print pack('N', length $reply), $reply;
}
