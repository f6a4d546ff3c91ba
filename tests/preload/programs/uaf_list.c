/* Bug: frees a linked list and reads each node's successor after the node is freed. */
#include "program.h"

struct node {
    struct node *next;
    long value;
};

int main(void) {
    struct node *head = NULL;
    for (long i = 0; i < 10; i++) {
        struct node *node = malloc(sizeof *node);
        if (node == NULL) return 2;
        *node = (struct node){head, i};
        head = node;
    }
    for (struct node *node = head; node != NULL; node = *(struct node *volatile *)&node->next) {
        release(node);
        HIDE(node);
    }
    return 0;
}
