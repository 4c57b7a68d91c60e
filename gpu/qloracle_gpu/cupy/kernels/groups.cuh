// Groups of elements that share a scale: flat runs (blocks, rows, the whole tensor), or columns.
#pragma once
#include "words.cuh"

// The group of the elements from `first` on: the next one after `length` elements of a run, or at every element.
struct Groups {
    i64 length;   // elements of a run; columns of the matrix
    bool column;  // whether elements of one column share a group
    i64 group, left;

    HOST_DEVICE Groups(i64 length, bool column, i64 first) : length(length), column(column) {
        i64 line = first / length, inside = first - line * length;
        group = column ? inside : line;
        left = length - inside;
    }

    // Step on; return whether the group changed.
    HOST_DEVICE bool next() {
        --left;
        if (column) {
            group = left == 0 ? 0 : group + 1;
            if (left == 0) left = length;
            return true;
        }
        if (left != 0) return false;
        ++group;
        left = length;
        return true;
    }
};
